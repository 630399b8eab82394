"""Optimizers in turn: clipping, accumulation, schedules, precision, resuming and several processes; and discriminators."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from adversarial_for_tests import batches, convolution, copies, fit, sgd, small_gan, still, tiny_recipe
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from im2im_zoo.core.errors import ComponentError, TrainingError
from im2im_zoo.frameworks.adversarial import build_discriminator, discriminate, linear_decay, network_channels
from im2im_zoo.frameworks.pix2pix import Pix2Pix
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.samples import write_samples
from im2im_zoo.training.run import load_framework, open_run
from im2im_zoo.training.train import train

FRAMEWORKS = tuple(
    f"im2im_zoo.frameworks.{m}" for m in ("pix2pix.Pix2Pix", "pix2pixhd.Pix2PixHD", "cyclegan.CycleGAN")
)


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples("nuclei_2d", tmp_path_factory.mktemp("samples") / "nuclei")


def pix2pix(**kwargs: Any) -> Pix2Pix:
    torch.manual_seed(0)
    defaults = {"discriminator": small_gan, "optimizer": sgd, "discriminator_optimizer": sgd}
    return Pix2Pix(convolution(2), **defaults | kwargs)


class Norms(pl.Callback):
    """The norm of the gradients that each optimizer steps by."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self._look)  # before it, nothing is clipped yet

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        self.found.append(float(torch.stack([g.norm() for g in gradients]).norm()))


def test_gradients_are_clipped_for_each_optimizer() -> None:
    free, clipped = Norms(), Norms()
    fit(pix2pix(), batches(2), callbacks=[free])
    fit(pix2pix(), batches(2), callbacks=[clipped], gradient_clip_val=0.01)
    assert min(free.found) > 0.01
    assert clipped.found == pytest.approx([0.01, 0.01], rel=1e-3)


@pytest.mark.parametrize("held", ["optimizer", "discriminator_optimizer"])
def test_accumulated_batches_are_one_large_batch(held: str) -> None:
    several = batches(2, count=4)
    large = [{k: torch.cat([several[i][k], several[i + 1][k]]) for k in several[0]} for i in (0, 2)]
    # One of the two is held still: else the batches that are accumulated meet it before and after its step.
    small, big = pix2pix(**{held: still}), pix2pix(**{held: still})
    before = copies(big)
    trainer = fit(small, several, accumulate_grad_batches=2)
    fit(big, large)
    assert trainer.global_step == 4
    assert any(not torch.equal(before[name], weight) for name, weight in copies(big).items())
    for name, weight in copies(big).items():
        torch.testing.assert_close(copies(small)[name], weight)


def test_the_last_batches_of_an_epoch_are_not_lost() -> None:
    framework = pix2pix()
    before = copies(framework.network)
    trainer = fit(framework, batches(2, count=3), accumulate_grad_batches=2)
    assert trainer.global_step == 4
    assert not torch.equal(before["weight"], framework.network.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("interval", "expected"), [("epoch", 0.5), ("step", 0.0)])
def test_schedules_advance_both_rates(interval: Any, expected: float) -> None:
    framework = pix2pix(scheduler=partial(linear_decay, constant=1, decay=2), scheduler_interval=interval)
    trainer = fit(framework, batches(2, count=2), max_epochs=2)
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([0.01 * expected] * 2)


def test_a_plateau_is_seen_in_validation() -> None:
    plateau = partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9, threshold_mode="abs"
    )
    trainer = fit(pix2pix(scheduler=plateau), batches(2), max_epochs=3)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([1e-4, 1e-4])


def test_half_precision_scales_for_the_backward_pass_only() -> None:
    full, half = Norms(), Norms()
    fit(pix2pix(), batches(2), callbacks=[full])
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
    fit(pix2pix(), batches(2), callbacks=[half], plugins=[plugin])
    assert half.found == pytest.approx(full.found, rel=0.02)
    clipped = Norms()
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
    fit(pix2pix(), batches(2), callbacks=[clipped], plugins=[plugin], gradient_clip_val=0.01)
    assert clipped.found == pytest.approx([0.01, 0.01], rel=1e-2)


def test_half_precision_and_accumulation_do_not_go_together() -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
    with pytest.raises(TrainingError, match=r"accumulate_grad_batches.*use bf16-mixed"):
        fit(pix2pix(), batches(2), plugins=[plugin], accumulate_grad_batches=2)


def test_a_loss_that_is_no_number_stops_training() -> None:
    data = batches(2)
    data[0]["input"][0, 0, 3, 3] = torch.nan
    with pytest.raises(TrainingError, match="d_loss became nan"):
        fit(pix2pix(), data)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_resumed_run_ends_as_an_unbroken_one(framework: str, nuclei: Path, tmp_path: Path) -> None:
    schedule = {
        "callable": "im2im_zoo.frameworks.adversarial.linear_decay",
        "call": False,
        "kwargs": {"constant": 1, "decay": 4},
    }
    more: dict[str, Any] = {"framework__kwargs__scheduler": schedule, "trainer__precision": "bf16-mixed"}
    if framework.endswith("CycleGAN"):
        # Full at once, so that what the pools hold decides what is learnt.
        more |= {"framework__kwargs__pool_size": 3, "framework__kwargs__histogram_weight": 1.0}
    unbroken = train(tiny_recipe(nuclei, framework, **more), tmp_path / "unbroken")
    train(tiny_recipe(nuclei, framework, trainer__max_epochs=1, **more), tmp_path / "resumed")
    resumed = train(tiny_recipe(nuclei, framework, **more), tmp_path / "resumed", resume=True)
    one, other = (torch.load(r.checkpoint("last"), weights_only=True) for r in (unbroken, resumed))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert any(key.startswith("discriminator") for key in one["state_dict"])
    for key, weight in one["state_dict"].items():
        assert torch.equal(weight, other["state_dict"][key]), key
    assert one["lr_schedulers"] == other["lr_schedulers"]
    network = load_framework(unbroken).exported_network()
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)


def test_what_a_network_maps_is_read_off_its_convolutions() -> None:
    network = nn.Sequential(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ConvTranspose3d(8, 5, 2))
    assert network_channels(network) == (3, 2, 5)
    judged = [build_discriminator(small_gan, network, images) for images in ("input", "output", "both")]
    first = [next(m for m in d.modules() if isinstance(m, nn.Conv3d)) for d in judged]
    assert [conv.in_channels for conv in first] == [2, 5, 7]
    with pytest.raises(ComponentError, match="no convolution that gives its channels"):
        network_channels(nn.Linear(2, 2))


def test_a_discriminator_that_is_built_already_is_taken_as_it_is() -> None:
    discriminator = small_gan(spatial_dims=2, in_channels=2)
    assert Pix2Pix(nn.Identity(), discriminator).discriminator is discriminator


@pytest.mark.parametrize("shape", [(2, 2, 8, 2), (2, 3, 16, 16)])
def test_patches_that_the_discriminator_cannot_judge_are_said(shape: tuple[int, ...]) -> None:
    discriminator = small_gan(spatial_dims=2, in_channels=2)
    with pytest.raises(TrainingError, match=r"make data\.patch_size larger"):
        discriminate(discriminator, torch.rand(shape))


def trained_by_command(recipe: Any, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    file = folder / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "im2im_zoo", "train", str(file), "--output", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    run = open_run(folder / "run")
    assert run.provenance["state"] == "complete"
    checkpoint: dict[str, Any] = torch.load(run.checkpoint("last"), weights_only=True)
    return checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_processes_learn_what_one_learns_of_their_batches(
    framework: str, nuclei: Path, tmp_path: Path
) -> None:
    plain = {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}
    descent = {"callable": "torch.optim.SGD", "call": False, "kwargs": {"lr": 0.01}}
    more: dict[str, Any] = {
        "framework__kwargs__optimizer": descent,
        "framework__kwargs__discriminator_optimizer": descent,
        # No instance norm: where a patch is flat, it makes rounding as large as the image.
        "network": {"callable": "torch.nn.Conv2d", "kwargs": plain},
        "data__patches_per_image": 8,  # all of them in each step, as processes draw them in another order
        "trainer__gradient_clip_val": 1.0,
    }
    inner = "__kwargs__discriminator" if framework.endswith("HD") else ""
    sides = (
        ("discriminator", "backward_discriminator") if framework.endswith("CycleGAN") else ("discriminator",)
    )
    for side in sides:
        more[f"framework__kwargs__{side}{inner}__kwargs__norm"] = "instance"
    if framework.endswith("CycleGAN"):
        more["framework__kwargs__pool_size"] = 0  # each process has its own chance
    both = {"trainer__devices": 2, "trainer__strategy": "ddp", "data__batch_size": 4}
    two = trained_by_command(tiny_recipe(nuclei, framework, **more, **both), tmp_path / "two")
    one = trained_by_command(tiny_recipe(nuclei, framework, **more, data__batch_size=8), tmp_path / "one")
    assert two["global_step"] == one["global_step"] == 4
    for key, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], weight, atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.slow
def test_each_process_keeps_its_own_image_pools(nuclei: Path, tmp_path: Path) -> None:
    more = {"trainer__devices": 2, "trainer__strategy": "ddp"}
    checkpoint = trained_by_command(tiny_recipe(nuclei, FRAMEWORKS[2], **more), tmp_path / "run")
    pools = checkpoint["image_pools"]
    assert [len(pool["target"]) for pool in pools] == [6, 6]
    assert not torch.equal(pools[0]["target"][0], pools[1]["target"][0])
