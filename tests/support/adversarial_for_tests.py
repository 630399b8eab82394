"""Small networks, batches and trainings for the tests of the adversarial frameworks."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe

# Judges patches of 16; without batch norm, so that a step can be done again by hand.
small_gan = partial(PatchDiscriminator, channels=4, num_layers_d=1, norm=("group", {"num_groups": 2}))
sgd = partial(torch.optim.SGD, lr=0.01)
still = partial(torch.optim.SGD, lr=0.0)

Batches = Sequence[Mapping[str, Tensor]]


def convolution(ndim: int, weight: float | None = None, bias: float = 0.0) -> nn.Module:
    """A convolution of one voxel that multiplies and adds; or one of three with random weights."""
    conv = nn.Conv2d if ndim == 2 else nn.Conv3d
    if weight is None:
        return conv(1, 1, 3, padding=1)
    network = conv(1, 1, 1)
    nn.init.constant_(network.weight, weight)
    nn.init.constant_(network.bias, bias)  # type: ignore[arg-type]
    return network


def batches(ndim: int, count: int = 1, size: int = 16) -> list[dict[str, Tensor]]:
    """Batches of two pairs; the target is the input, brighter."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        image = torch.rand(2, 1, *[size] * ndim, generator=generator)
        made.append({"input": image, "target": 2 * image + 1})
    return made


def fit(framework: Framework, data: Batches, **options: Any) -> pl.Trainer:
    """Train for an epoch, unless options say otherwise; the same batches validate."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    with _quiet():
        trainer = pl.Trainer(**defaults | options)
        loaders = [DataLoader(list(data), batch_size=None) for _ in range(2)]  # type: ignore[arg-type]
        trainer.fit(framework, *loaders)
    return trainer


def copies(module: nn.Module) -> dict[str, Tensor]:
    """The parameters as they are now."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def tiny_recipe(images: Path, callable_: str, **overrides: object) -> Recipe:
    """A recipe of a framework on nuclei, so small that training takes a second; `__` in keywords stands for a dot."""
    discriminator = {
        "callable": "monai.networks.nets.PatchDiscriminator",
        "call": False,
        "kwargs": {"channels": 4, "num_layers_d": 1},
    }
    if callable_.endswith("Pix2PixHD"):
        kwargs = {"discriminator": discriminator, "scales": 2}
        scales = "im2im_zoo.networks.patchgan.MultiScalePatchGAN"
        discriminator = {"callable": scales, "call": False, "kwargs": kwargs}
    both = {"discriminator": discriminator}
    if callable_.endswith("CycleGAN"):
        both |= {"backward_discriminator": discriminator}
    network = {
        "callable": "im2im_zoo.networks.resnet_generator.ResnetGenerator",
        "kwargs": {"width": 4, "blocks": 1},
    }
    changes: list[tuple[str, object]] = [
        ("framework", {"callable": callable_, "kwargs": both}),
        ("network", network),
        ("data.path", str(images)),
        ("data.patch_size", [32, 32]),
        ("data.patches_per_image", 6),
        ("data.batch_size", 3),
        ("trainer.max_epochs", 2),
        ("trainer.accelerator", "cpu"),
        ("monitor", "val_loss"),
        ("monitor_mode", "min"),
    ]
    more = [(key.replace("__", "."), value) for key, value in overrides.items()]
    return load_recipe("nuclei_2d", [*changes, *more])


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for said in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", said)
        yield
