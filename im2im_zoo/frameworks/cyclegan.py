"""Translation between two kinds of images of which no pairs are known, and back."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.adversarial import (
    DiscriminatorFactory,
    Interval,
    Turns,
    fitting,
    judge,
    judgements,
    log_losses,
    log_validation,
    of_every_process,
    paper_adam,
    patch_gan,
    ports,
    scheduled,
)
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerFactory, SchedulerFactory
from im2im_zoo.losses.gan import GANLoss, Kind
from im2im_zoo.losses.histogram import HistogramDiscriminator

GENERATORS, DISCRIMINATORS = 0, 1
SIDES = ("input", "target")


class ImagePool:
    """Generated images that a discriminator sees again later (Shrivastava et al. 2017, arXiv:1612.07828).

    It draws from torch's global generator, which training seeds anew each epoch; so a resumed run needs `images` only.

    Args:
        size: how many it keeps; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """As many images, (batch, channel, (z,) y, x): until the pool is full the new ones, which it keeps; then for
        half of them, by chance, an old one, the place of which the new one takes."""
        return torch.stack([self._exchanged(image) for image in images])

    def _exchanged(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())  # a view would keep the batch
            return image
        if not self.size or torch.rand(()) < 0.5:
            return image
        place = int(torch.randint(self.size, ()))
        old, self.images[place] = self.images[place], image.clone()
        return old.to(image)


class CycleGAN(Framework):
    """Unpaired translation by cycle consistency (Zhu et al. 2017, arXiv:1703.10593).

    Two generators, of which each undoes the other; two discriminators, of what looks like a target and what like an
    input. The generators step first, then the discriminators, which see some of the images generated before. Identity:
    each generator has to return the images that it is meant to make, `network` the targets; it is left out where
    input and target have different channels. With `histogram_weight`, two more discriminators judge by the sorted
    intensities alone (Ihle et al. 2019, see `losses.histogram`; the authors' weight is 1, without identity).

    Input and target of a batch need not belong together (`pairing: unpaired`); those of validation do. Cost maps have no
    say. Logs `train_loss` (the generators'), its parts `train_gan`, `train_cycle`, `train_identity` and
    `train_histogram`, the discriminators' `d_loss`, and `val_loss`, the mean absolute error of the exported direction.

    Args:
        network: the generator from input to target; maps (batch, channel, (z,) y, x) to the target's shape.
        backward_network: the one from target to input; by default, if their channels are equal, a copy of `network` with
            its weights drawn anew (those of layers that have `reset_parameters`).
        discriminator, backward_discriminator: of targets and of inputs; built, or a factory (`call: false`) that is
            called with `spatial_dims` and `in_channels`, which are read off the network.
        gan_loss: vanilla, least_squares or hinge.
        cycle_weight: the paper's lambda.
        identity_weight: as a part of `cycle_weight`; 0 for no identity loss.
        histogram_weight: 0 for no histogram discriminators.
        pool_size: generated images of each side that are kept, in the checkpoints too; 0 for none.
        direction: which generator is exported. A package describes its input by the recipe's `input`: for `backward`,
            input and target need the same channels, and should be preprocessed alike; otherwise swap them in the recipe.
        metrics: name -> torchmetrics.Metric of (prediction, target), logged in validation as `val_<name>`.
        optimizer, discriminator_optimizer: make the optimizers of both generators and of all discriminators; `call: false`.
        scheduler: makes the schedule of each optimizer; `call: false`; e.g. `adversarial.linear_decay`.
        scheduler_interval: whether the schedules advance every epoch or every step.

    Raises:
        ComponentError: channels differ and there is no `backward_network`, or `direction` is backward.
    """

    uses_pairs = False
    passes_kept = 3  # both generators there and back, and each of what it should not change

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
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = paper_adam,
        discriminator_optimizer: OptimizerFactory = paper_adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Interval = "epoch",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.backward_network = _backward(network) if backward_network is None else backward_network
        self._source, self._goal = _ends(direction, network)
        self.discriminators = nn.ModuleDict(
            {
                "input": fitting(backward_discriminator, network, "input"),
                "target": fitting(discriminator, network, "output"),
            }
        )
        channels = dict(zip(SIDES, ports(network)[1:], strict=True)) if histogram_weight else {}
        self.histogram_discriminators = nn.ModuleDict(
            {side: HistogramDiscriminator(n) for side, n in channels.items()}
        )
        self.gan = GANLoss(gan_loss)
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self.pools = {side: ImagePool(pool_size) for side in SIDES}
        self._weights = {
            "train_gan": 1.0,
            "train_cycle": cycle_weight,
            "train_identity": cycle_weight * identity_weight,
            "train_histogram": histogram_weight,
        }
        self._optimizers = (optimizer, discriminator_optimizer)
        self._schedule = (scheduler, scheduler_interval)
        self._turns = Turns(None, None, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The output of the exported generator, of (batch, channel, (z,) y, x)."""
        output: Tensor = self.exported_network()(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """A step of the generators, then one of the discriminators."""
        real = {side: batch[side] for side in SIDES}
        fake = {"input": self.backward_network(real["target"]), "target": self.network(real["input"])}
        with self._turns.turn(self, GENERATORS, batch_idx) as descend:
            parts = self._generator_losses(real, fake)
            terms = [self._weights[name] * part for name, part in parts.items()]
            loss = self.finite(torch.stack(terms).sum())
            descend(loss)
        with self._turns.turn(self, DISCRIMINATORS, batch_idx) as descend:
            d_loss = self.finite(self._discriminator_loss(real, fake), "d_loss")
            descend(d_loss)
        log_losses(self, loss, parts | {"d_loss": d_loss}, len(real["input"]))

    def _generator_losses(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts of the generators' loss, without their weights."""
        forward, backward = self.network, self.backward_network
        parts = {
            "train_gan": torch.stack(
                [self.gan.generator(self._judge(side, fake[side])) for side in SIDES]
            ).sum(),
            "train_cycle": F.l1_loss(backward(fake["target"]), real["input"])
            + F.l1_loss(forward(fake["input"]), real["target"]),
        }
        if self._weights["train_identity"] and real["input"].shape[1] == real["target"].shape[1]:
            parts["train_identity"] = F.l1_loss(forward(real["target"]), real["target"]) + F.l1_loss(
                backward(real["input"]), real["input"]
            )
        if self.histogram_discriminators:
            judged = self.histogram_discriminators.items()
            parts["train_histogram"] = torch.stack(
                [self.gan.generator(d(fake[side])) for side, d in judged]
            ).sum()
        return parts

    def _discriminator_loss(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> Tensor:
        shown = {side: self.pools[side].exchange(fake[side].detach()) for side in SIDES}
        losses = [
            self.gan.discriminator(self._judge(side, real[side]), self._judge(side, shown[side]))
            for side in SIDES
        ]
        for side, discriminator in self.histogram_discriminators.items():
            loss = self.gan.discriminator(discriminator(real[side]), discriminator(shown[side]))
            losses.append(self._weights["train_histogram"] * loss)
        return torch.stack(losses).sum()

    def _judge(self, side: str, images: Tensor) -> list[Tensor]:
        return judgements(judge(self.discriminators[side], images))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean absolute error and the metrics of one batch of pairs."""
        prediction, target = self(batch[self._source]), batch[self._goal]
        log_validation(self, self.metrics, prediction, target, F.l1_loss(prediction, target))

    def configure_optimizers(self) -> Any:
        """The optimizers of generators and discriminators, and their schedules."""
        generators = nn.ModuleList([self.network, self.backward_network])
        discriminators = nn.ModuleList([self.discriminators, self.histogram_discriminators])
        networks = (generators, discriminators)
        made = [make(n.parameters()) for make, n in zip(self._optimizers, networks, strict=True)]
        return scheduled(made, *self._schedule)

    def configure_callbacks(self) -> list[pl.Callback]:
        """The turns of the two optimizers, by the trainer's options."""
        self._turns = Turns.taken_over(self.trainer)
        return [self._turns]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the image pools of all processes: what the discriminators will see depends on them."""
        pools = {side: [image.cpu() for image in pool.images] for side, pool in self.pools.items()}
        checkpoint["image_pools"] = of_every_process(pools)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the image pools of this process, or of another where there were fewer of them."""
        every = checkpoint["image_pools"]
        for side, images in every[self.global_rank % len(every)].items():
            self.pools[side].images = list(images)

    def exported_network(self) -> nn.Module:
        """The generator of the chosen direction."""
        return self.network if self._source == "input" else self.backward_network


def _ends(direction: str, network: nn.Module) -> tuple[str, str]:
    """Of the exported generator, which side it takes and which it gives."""
    if direction == "forward":
        return "input", "target"
    _, inputs, outputs = ports(network)
    if inputs != outputs:
        raise ComponentError(
            f"framework.kwargs.direction: the package's input, as the recipe describes it, has {inputs} channel(s), the "
            f"backward network takes {outputs}; swap data.input and data.target, and the sections input and target, "
            "and export the forward direction"
        )
    return "target", "input"


def _backward(network: nn.Module) -> nn.Module:
    """A copy of a generator with weights of its own, for the way back."""
    _, inputs, outputs = ports(network)
    if inputs != outputs:
        raise ComponentError(
            f"framework.kwargs.backward_network is needed: the network maps {inputs} channel(s) to {outputs}, so another "
            "one has to map them back; give it as a component"
        )
    backward = copy.deepcopy(network)
    _draw_anew(backward)
    return backward


def _draw_anew(module: nn.Module) -> None:
    """Draw the weights of a module as it does itself, or else those of the modules within it."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for child in module.children():
        _draw_anew(child)
