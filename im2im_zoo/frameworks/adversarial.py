"""What the adversarial frameworks share: discriminators that fit a network, and optimizers that step in turn.

No method of its own: what is lost, and who steps when, is in each framework.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from im2im_zoo.frameworks.base import Framework, OptimizerFactory, SchedulerFactory

DiscriminatorFactory = Callable[..., nn.Module]
Interval = Literal["epoch", "step"]

# The PatchGAN of 70x70 of pix2pix, and the optimizer of all three papers.
patch_gan: DiscriminatorFactory = partial(PatchDiscriminator, channels=64)
paper_adam: OptimizerFactory = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))


def ports(network: nn.Module) -> tuple[int, int, int]:
    """Space dimensions, input and output channels of a network, read off its first and its last convolution.

    Raises:
        ComponentError: it has no convolution.
    """
    convolutions = [module for module in network.modules() if isinstance(module, _ConvNd)]
    if not convolutions:
        raise ComponentError(
            f"network: {type(network).__name__} has no convolution to tell its channels by; give "
            "framework.kwargs.discriminator built, with `in_channels`, not as `call: false`"
        )
    first, last = convolutions[0], convolutions[-1]
    return len(first.kernel_size), first.in_channels, last.out_channels


def fitting(
    discriminator: nn.Module | DiscriminatorFactory,
    network: nn.Module,
    judged: Literal["input", "output", "both"],
) -> nn.Module:
    """The discriminator itself if it is built already, else one made for the images of a network that it judges.

    Raises:
        ComponentError: see `ports`.
    """
    if isinstance(discriminator, nn.Module):
        return discriminator
    spatial_dims, inputs, outputs = ports(network)
    channels = {"input": inputs, "output": outputs, "both": inputs + outputs}[judged]
    return discriminator(spatial_dims=spatial_dims, in_channels=channels)


def judge(discriminator: nn.Module, images: Tensor) -> list[list[Tensor]]:
    """For each scale of a discriminator, the outputs of its layers, the last of them its judgement.

    Args:
        discriminator: gives a tensor, a list of its layers' outputs, or a list of such lists, one a scale.
        images: (batch, channel, (z,) y, x).

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
            f"the discriminator cannot judge patches of {list(images.shape)} (batch, channel, space): {error}; make "
            "data.patch_size larger, or give framework.kwargs.discriminator fewer layers or scales, or these channels"
        ) from error
    if isinstance(output, Tensor):
        return [[output]]
    return output if isinstance(output[0], list | tuple) else [output]


def judgements(scales: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The judgement of each scale."""
    return [layers[-1] for layers in scales]


def log_validation(
    framework: Framework, metrics: nn.ModuleDict, prediction: Tensor, target: Tensor, loss: Tensor
) -> None:
    """Log the loss of a batch as `val_loss` and its metrics as `val_<name>`, accumulated over the epoch."""
    size = len(target)
    framework.log("val_loss", framework.finite(loss, "val_loss"), batch_size=size, sync_dist=True)
    for name, metric in metrics.items():
        metric(prediction.float(), target)
        framework.log(f"val_{name}", cast(Metric, metric), on_step=False, on_epoch=True, batch_size=size)


def log_losses(framework: Framework, loss: Tensor, parts: Mapping[str, Tensor], size: int) -> None:
    """Log the generator's loss as `train_loss`, of each step and epoch, and parts under their names, of each epoch."""
    framework.log("train_loss", loss.detach(), on_step=True, on_epoch=True, batch_size=size)
    for name, part in parts.items():
        framework.log(name, part.detach(), on_step=False, on_epoch=True, batch_size=size)


def linear_decay(optimizer: Optimizer, constant: int, decay: int) -> LRScheduler:
    """The schedule of the papers: the optimizer's rate for `constant` epochs, falling to 0 over `decay` more (100 and 100)."""
    return LambdaLR(optimizer, lambda epoch: max(0.0, 1.0 - max(0, epoch - constant) / decay))


def scheduled(
    optimizers: Sequence[Optimizer], scheduler: SchedulerFactory | None, interval: Interval
) -> list[dict[str, Any]]:
    """Optimizers and their schedules as Lightning's `configure_optimizers` returns those that are stepped by hand."""
    if scheduler is None:
        return [{"optimizer": optimizer} for optimizer in optimizers]
    return [
        {"optimizer": o, "lr_scheduler": {"scheduler": scheduler(o), "interval": interval}}
        for o in optimizers
    ]


def of_every_process(value: object) -> list[Any]:
    """The value that each process of a distributed training has, in the order of their ranks; all have to ask."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


class Turns(pl.Callback):
    """Optimizers that step in turn, by what the trainer says of clipping, accumulation, precision and processes.

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
    def taken_over(cls, trainer: pl.Trainer) -> "Turns":
        """The turns of a trainer, which then neither clips nor accumulates itself.

        Raises:
            TrainingError: it accumulates gradients of 16 bit, whose scale may change while they are.
        """
        precision = trainer.precision_plugin
        scaled = isinstance(precision, MixedPrecision) and precision.scaler is not None
        if scaled and trainer.accumulate_grad_batches > 1:
            raise TrainingError(
                "trainer.accumulate_grad_batches: several optimizers cannot accumulate gradients that are scaled, as "
                "trainer.precision=16-mixed does; use bf16-mixed, or a larger data.batch_size"
            )
        turns = cls(
            trainer.gradient_clip_val, trainer.gradient_clip_algorithm, trainer.accumulate_grad_batches
        )
        trainer.gradient_clip_val, trainer.accumulate_grad_batches = None, 1
        return turns

    @contextmanager
    def turn(self, framework: Framework, which: int, batch_idx: int) -> Iterator[Callable[[Tensor], None]]:
        """The turn of one optimizer: within it, only its parameters have gradients.

        Args:
            framework: in its training step.
            which: number of the optimizer in `configure_optimizers`.
            batch_idx: of the training step.

        Yields:
            What takes the loss, and steps if it is time to.
        """
        trainer = framework.trainer
        optimizer = cast("list[LightningOptimizer]", framework.optimizers())[which]
        steps = trainer.is_last_batch or (batch_idx + 1) % self._accumulate == 0

        def descend(loss: Tensor) -> None:
            framework.manual_backward(loss / self._accumulate)
            if steps:
                optimizer.step()
                optimizer.zero_grad()
                _advance(trainer, "step", optimizer.optimizer)

        with optimizer.toggle_model(sync_grad=steps):
            yield descend

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
