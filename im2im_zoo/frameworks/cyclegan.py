"""CycleGAN: translation between two kinds of images without pairs."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.adversarial import (
    DISCRIMINATOR,
    GENERATOR,
    AdversarialFramework,
    AdversarialOptions,
    DiscriminatorFactory,
    build_discriminator,
    discriminate,
    gather_from_processes,
    last_layers,
    network_channels,
    patch_gan,
)
from im2im_zoo.frameworks.base import Batch
from im2im_zoo.losses.gan import GANLoss, Kind
from im2im_zoo.losses.histogram import HistogramDiscriminator

SIDES = ("input", "target")


class ImagePool:
    """Buffer of generated images that a discriminator sees again later (Shrivastava et al. 2017, arXiv:1612.07828).

    It draws from torch's global generator, which training seeds again each epoch; so a resumed run needs `images` only.

    Args:
        size: images that it keeps; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Return as many images, some of them kept from earlier batches.

        Until the pool is full it returns and keeps the new ones. Then it replaces each, with probability 1/2, by a kept
        one, and keeps the new one in its place.

        Args:
            images: (batch, channel, (z,) y, x).
        """
        return torch.stack([self._exchange_one(image) for image in images])

    def _exchange_one(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())  # a view would keep the batch
            return image
        if not self.size or torch.rand(()) < 0.5:
            return image
        place = int(torch.randint(self.size, ()))
        old, self.images[place] = self.images[place], image.clone()
        return old.to(image)


class CycleGAN(AdversarialFramework):
    """Unpaired translation by cycle consistency (Zhu et al. 2017, arXiv:1703.10593).

    Two generators map input to target and back; two discriminators tell real from generated targets and inputs. The
    generators step first, then the discriminators, which see some images generated earlier. Identity loss: each generator
    has to return the images of its output side unchanged; it is left out where input and target have different channels.
    With `histogram_weight`, two more discriminators see only the sorted intensities (Ihle et al. 2019, see
    `losses.histogram`; the authors' weight is 1, without identity).

    Input and target of a batch need not belong together (`pairing: unpaired`); those of validation do. Weight maps are
    ignored. Logs `train_loss` (the generators'), its parts `train_gan`, `train_cycle`, `train_identity` and
    `train_histogram`, the discriminators' `d_loss`, and `val_loss`, the mean absolute error of the exported direction.

    Args:
        network: the generator from input to target; maps (batch, channel, (z,) y, x) to the target's shape.
        backward_network: the one from target to input; by default, if their channels are equal, a copy of `network` with
            new random weights (in layers that have `reset_parameters`).
        discriminator, backward_discriminator: of targets and of inputs; built, or a factory (`call: false`) that is
            called with `spatial_dims` and `in_channels`, which are read from the network.
        gan_loss: vanilla, least_squares or hinge.
        cycle_weight: the paper's lambda.
        identity_weight: as a part of `cycle_weight`; 0 for no identity loss.
        histogram_weight: 0 for no histogram discriminators.
        pool_size: generated images of each side that are kept, in the checkpoints too; 0 for none.
        direction: which generator is exported. A package describes its input by the recipe's `input`: for `backward`,
            input and target need the same channels, and should be preprocessed alike; otherwise swap them in the recipe.
        options: see `AdversarialOptions`.

    Raises:
        ComponentError: channels differ and there is no `backward_network`, or `direction` is backward.
    """

    cite = Citation(
        "Zhu et al. 2017: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
        "10.48550/arXiv.1703.10593",
    )
    uses_pairs = False
    passes_kept = 3  # both generators there and back, and each for the identity loss

    def __init__(
        self,
        network: nn.Module,
        backward_network: nn.Module | None = None,
        discriminator: nn.Module | DiscriminatorFactory = patch_gan,
        backward_discriminator: nn.Module | DiscriminatorFactory = patch_gan,
        gan_loss: Kind = "least_squares",
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        histogram_weight: float = 0.0,
        pool_size: int = 50,
        direction: Literal["forward", "backward"] = "forward",
        **options: Unpack[AdversarialOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.backward_network = _backward(network) if backward_network is None else backward_network
        self._source, self._goal = _ends(direction, network)
        self.discriminators = nn.ModuleDict(
            {
                "input": build_discriminator(backward_discriminator, network, "input"),
                "target": build_discriminator(discriminator, network, "output"),
            }
        )
        channels = dict(zip(SIDES, network_channels(network)[1:], strict=True)) if histogram_weight else {}
        self.histogram_discriminators = nn.ModuleDict(
            {side: HistogramDiscriminator(n) for side, n in channels.items()}
        )
        self.gan = GANLoss(gan_loss)
        self.pools = {side: ImagePool(pool_size) for side in SIDES}
        self._weights = {
            "train_gan": 1.0,
            "train_cycle": cycle_weight,
            "train_identity": cycle_weight * identity_weight,
            "train_histogram": histogram_weight,
        }

    def generators(self) -> nn.Module:
        """Return both generators."""
        return nn.ModuleList([self.network, self.backward_network])

    def all_discriminators(self) -> nn.Module:
        """Return the discriminators of images and of histograms."""
        return nn.ModuleList([self.discriminators, self.histogram_discriminators])

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Step the generators, then the discriminators."""
        real = {side: batch[side] for side in SIDES}
        fake = {"input": self.backward_network(real["target"]), "target": self.network(real["input"])}
        with self.alternate(GENERATOR, batch_idx) as backward_and_step:
            parts = self._generator_losses(real, fake)
            terms = [self._weights[name] * part for name, part in parts.items()]
            loss = self.finite(torch.stack(terms).sum())
            backward_and_step(loss)
        with self.alternate(DISCRIMINATOR, batch_idx) as backward_and_step:
            d_loss = self.finite(self._discriminator_loss(real, fake), "d_loss")
            backward_and_step(d_loss)
        self.log_training(loss, len(real["input"]), parts | {"d_loss": d_loss})

    def _generator_losses(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parts of the generators' loss, not yet weighted."""
        forward, backward = self.network, self.backward_network
        parts = {
            "train_gan": torch.stack(
                [self.gan.generator(self._scores(side, fake[side])) for side in SIDES]
            ).sum(),
            "train_cycle": F.l1_loss(backward(fake["target"]), real["input"])
            + F.l1_loss(forward(fake["input"]), real["target"]),
        }
        if self._weights["train_identity"] and real["input"].shape[1] == real["target"].shape[1]:
            parts["train_identity"] = F.l1_loss(forward(real["target"]), real["target"]) + F.l1_loss(
                backward(real["input"]), real["input"]
            )
        if self.histogram_discriminators:
            discriminators = self.histogram_discriminators.items()
            parts["train_histogram"] = torch.stack(
                [self.gan.generator(d(fake[side])) for side, d in discriminators]
            ).sum()
        return parts

    def _discriminator_loss(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> Tensor:
        shown = {side: self.pools[side].exchange(fake[side].detach()) for side in SIDES}
        losses = [
            self.gan.discriminator(self._scores(side, real[side]), self._scores(side, shown[side]))
            for side in SIDES
        ]
        for side, discriminator in self.histogram_discriminators.items():
            loss = self.gan.discriminator(discriminator(real[side]), discriminator(shown[side]))
            losses.append(self._weights["train_histogram"] * loss)
        return torch.stack(losses).sum()

    def _scores(self, side: str, images: Tensor) -> list[Tensor]:
        return last_layers(discriminate(self.discriminators[side], images))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean absolute error and the metrics of one batch of pairs."""
        prediction, target = self(batch[self._source]), batch[self._goal]
        self.log_validation(F.l1_loss(prediction, target), len(target))
        self.log_metrics(prediction, target)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the image pools of all processes: what the discriminators will see depends on them."""
        pools = {side: [image.cpu() for image in pool.images] for side, pool in self.pools.items()}
        checkpoint["image_pools"] = gather_from_processes(pools)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the image pools of this process, or of another one if there were fewer processes."""
        every = checkpoint["image_pools"]
        for side, images in every[self.global_rank % len(every)].items():
            self.pools[side].images = list(images)

    def exported_network(self) -> nn.Module:
        """Return the generator of the chosen direction."""
        return self.network if self._source == "input" else self.backward_network


def _ends(direction: str, network: nn.Module) -> tuple[str, str]:
    """Return the input and output side of the exported generator."""
    if direction == "forward":
        return "input", "target"
    _, inputs, outputs = network_channels(network)
    if inputs != outputs:
        raise ComponentError(
            f"framework.kwargs.direction: the package's input, as the recipe describes it, has {inputs} channel(s), the "
            f"backward network takes {outputs}; swap data.input and data.target, and the sections input and target, "
            "and export the forward direction"
        )
    return "target", "input"


def _backward(network: nn.Module) -> nn.Module:
    """Return a copy of a generator with new random weights, for the way back."""
    _, inputs, outputs = network_channels(network)
    if inputs != outputs:
        raise ComponentError(
            f"framework.kwargs.backward_network is needed: the network maps {inputs} channel(s) to {outputs}, so another "
            "one has to map them back; give it as a component"
        )
    backward = copy.deepcopy(network)
    _reset_weights(backward)
    return backward


def _reset_weights(module: nn.Module) -> None:
    """Draw new weights by the module's own `reset_parameters`, or else by those of its children."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for child in module.children():
        _reset_weights(child)
