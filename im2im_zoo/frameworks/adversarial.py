"""Adversarial training: its base class, discriminators that fit a network, and optimizers that step in turn.

The losses, and which network steps first, are in `pix2pix`, `pix2pixhd` and `cyclegan`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from im2im_zoo.core.errors import ComponentError, TrainingError
from im2im_zoo.frameworks.base import (
    Framework,
    Interval,
    OptimizerFactory,
    SchedulerFactory,
    TrainingOptions,
)

DiscriminatorFactory = Callable[..., nn.Module]

# Numbers of the optimizers in `configure_optimizers`.
GENERATOR, DISCRIMINATOR = 0, 1

# The 70x70 PatchGAN of pix2pix, and the optimizer of all three papers.
patch_gan: DiscriminatorFactory = partial(PatchDiscriminator, channels=64)
paper_adam: OptimizerFactory = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))


class AdversarialOptions(TrainingOptions, total=False):
    """Arguments of every adversarial framework, besides its own; its schedule is that of each optimizer.

    Attributes:
        discriminator_optimizer: builds the optimizer of all discriminators; `optimizer` is of the generators. By
            default both are `paper_adam`.
    """

    discriminator_optimizer: OptimizerFactory


class AdversarialFramework(Framework):
    """A framework whose generators and discriminators step in turn.

    A subclass writes its training step with `alternate`. The schedule of the papers is `linear_decay`.

    Args:
        metrics, optimizer, discriminator_optimizer, scheduler, scheduler_interval: see `AdversarialOptions`.
    """

    def __init__(
        self,
        *,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = paper_adam,
        discriminator_optimizer: OptimizerFactory = paper_adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Interval = "epoch",
    ) -> None:
        super().__init__(
            metrics=metrics,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
        )
        self.automatic_optimization = False
        self._discriminator_optimizer = discriminator_optimizer
        self._optimizers = AlternatingOptimizers(None, None, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output of the exported generator for (batch, channel, (z,) y, x)."""
        output: Tensor = self.exported_network()(image)
        return output

    def generators(self) -> nn.Module:
        """Return the networks that `optimizer` changes, as one module."""
        return self.network

    def all_discriminators(self) -> nn.Module:
        """Return the networks that `discriminator_optimizer` changes, as one module."""
        return cast(nn.Module, self.discriminator)

    def configure_optimizers(self) -> Any:
        """Return the optimizers of generators and discriminators, and their schedules."""
        optimizers = [
            self._optimizer(self.generators().parameters()),
            self._discriminator_optimizer(self.all_discriminators().parameters()),
        ]
        scheduler = self._scheduler
        if scheduler is None:
            return [{"optimizer": optimizer} for optimizer in optimizers]
        return [
            {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler(optimizer), "interval": self._scheduler_interval},
            }
            for optimizer in optimizers
        ]

    def configure_callbacks(self) -> list[pl.Callback]:
        """Return the alternating optimizers, with the trainer's options."""
        self._optimizers = AlternatingOptimizers.from_trainer(self.trainer)
        return [self._optimizers]

    def alternate(self, which: int, batch_idx: int) -> AbstractContextManager[Callable[[Tensor], None]]:
        """Let one optimizer step; see `AlternatingOptimizers.alternate`."""
        return self._optimizers.alternate(self, which, batch_idx)


class AlternatingOptimizers(pl.Callback):
    """Optimizers that step in turn, with the trainer's clipping, accumulation, precision and processes.

    Lightning refuses `gradient_clip_val` and `accumulate_grad_batches` where a framework steps its optimizers itself,
    and steps no schedule for it; so both are taken over from the trainer before it looks. A framework returns it from
    `configure_callbacks`. Lightning counts a step of each optimizer: `trainer.max_steps` and the column `step` of the
    metrics are so many times the batches.
    """

    def __init__(self, clip: float | None, algorithm: str | None, accumulate: int) -> None:
        self._clip = clip
        self._algorithm = algorithm
        self._accumulate = accumulate

    @classmethod
    def from_trainer(cls, trainer: pl.Trainer) -> "AlternatingOptimizers":
        """Take clipping and accumulation over from a trainer, which then does neither itself.

        Raises:
            TrainingError: it accumulates gradients of 16 bit, whose scale may change while they are accumulated.
        """
        precision = trainer.precision_plugin
        scaled = isinstance(precision, MixedPrecision) and precision.scaler is not None
        if scaled and trainer.accumulate_grad_batches > 1:
            raise TrainingError(
                "trainer.accumulate_grad_batches: several optimizers cannot accumulate gradients that are scaled, as "
                "trainer.precision=16-mixed does; use bf16-mixed, or a larger data.batch_size"
            )
        optimizers = cls(
            trainer.gradient_clip_val, trainer.gradient_clip_algorithm, trainer.accumulate_grad_batches
        )
        trainer.gradient_clip_val, trainer.accumulate_grad_batches = None, 1
        return optimizers

    @contextmanager
    def alternate(
        self, framework: Framework, which: int, batch_idx: int
    ) -> Iterator[Callable[[Tensor], None]]:
        """Let one optimizer step; within the context only its parameters have gradients.

        Args:
            framework: in its training step.
            which: number of the optimizer in `configure_optimizers`.
            batch_idx: of the training step.

        Yields:
            A function of the loss that runs the backward pass, and steps if the accumulated batches are complete.
        """
        trainer = framework.trainer
        optimizer = cast("list[LightningOptimizer]", framework.optimizers())[which]
        steps = trainer.is_last_batch or (batch_idx + 1) % self._accumulate == 0

        def backward_and_step(loss: Tensor) -> None:
            framework.manual_backward(loss / self._accumulate)
            if steps:
                optimizer.step()
                optimizer.zero_grad()
                _advance(trainer, "step", optimizer.optimizer)

        with optimizer.toggle_model(sync_grad=steps):
            yield backward_and_step

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell distributed training that a backward pass reaches the networks of one optimizer only."""
        if isinstance(trainer.strategy, DDPStrategy):
            trainer.strategy._ddp_kwargs["find_unused_parameters"] = True

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Clip the gradients, which mixed precision has unscaled by now."""
        if self._clip:
            pl_module.clip_gradients(optimizer, self._clip, self._algorithm)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Advance the schedules of epochs, before the checkpoint of the epoch is written."""
        _advance(trainer, "epoch")


def _advance(trainer: pl.Trainer, interval: Interval, optimizer: Optimizer | None = None) -> None:
    """Advance the schedules of an interval, of one optimizer or of all."""
    for config in trainer.lr_scheduler_configs:
        schedule = config.scheduler
        if config.interval != interval or optimizer not in (None, schedule.optimizer):
            continue
        if not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()
        elif "val_loss" in trainer.callback_metrics:  # not before the first validation
            schedule.step(trainer.callback_metrics["val_loss"])


def linear_decay(optimizer: Optimizer, constant: int, decay: int) -> LRScheduler:
    """Return the papers' schedule: a constant rate, then a linear fall to 0.

    Args:
        optimizer: whose rate it changes.
        constant: epochs at the optimizer's rate; 100 in the papers.
        decay: epochs of the fall; 100 in the papers.
    """
    return LambdaLR(optimizer, lambda epoch: max(0.0, 1.0 - max(0, epoch - constant) / decay))


def network_channels(network: nn.Module) -> tuple[int, int, int]:
    """Return space dimensions, input and output channels of a network, read from its first and last convolution.

    Raises:
        ComponentError: the network has no convolution.
    """
    convolutions = [module for module in network.modules() if isinstance(module, _ConvNd)]
    if not convolutions:
        raise ComponentError(
            f"network: {type(network).__name__} has no convolution that gives its channels; give "
            "framework.kwargs.discriminator built, with `in_channels`, not as `call: false`"
        )
    first, last = convolutions[0], convolutions[-1]
    return len(first.kernel_size), first.in_channels, last.out_channels


def build_discriminator(
    discriminator: nn.Module | DiscriminatorFactory,
    network: nn.Module,
    images: Literal["input", "output", "both"],
) -> nn.Module:
    """Return a discriminator that takes the images of a network.

    Args:
        discriminator: already built, or a factory called with `spatial_dims` and `in_channels`.
        network: the generator, from whose convolutions these are read.
        images: which images of the network it takes; "both" are concatenated.

    Raises:
        ComponentError: the network has no convolution.
    """
    if isinstance(discriminator, nn.Module):
        return discriminator
    spatial_dims, inputs, outputs = network_channels(network)
    channels = {"input": inputs, "output": outputs, "both": inputs + outputs}[images]
    return discriminator(spatial_dims=spatial_dims, in_channels=channels)


def discriminate(discriminator: nn.Module, images: Tensor) -> list[list[Tensor]]:
    """Run a discriminator.

    Args:
        discriminator: returns a tensor, a list of its layers' outputs, or a list of such lists, one a scale.
        images: (batch, channel, (z,) y, x).

    Returns:
        For each scale the outputs of its layers, the scores last.

    Raises:
        TrainingError: the images are too small for it, or have other channels than it takes.
    """
    try:
        output = discriminator(images)
    except (RuntimeError, ValueError) as error:
        if not any(
            known in str(error) for known in ("Kernel size", "more than 1 value", "channels", "output size")
        ):
            raise
        raise TrainingError(
            f"the discriminator cannot take patches of {list(images.shape)} (batch, channel, space): {error}; make "
            "data.patch_size larger, or give framework.kwargs.discriminator fewer layers or scales, or these channels"
        ) from error
    if isinstance(output, Tensor):
        return [[output]]
    return output if isinstance(output[0], list | tuple) else [output]


def last_layers(scales: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the scores of each scale: the output of its last layer."""
    return [layers[-1] for layers in scales]


def gather_from_processes(value: object) -> list[Any]:
    """Return the value of each process of a distributed training, in the order of ranks; all have to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
