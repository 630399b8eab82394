"""Base class of the training frameworks: optimizer, schedule, metrics, logging, and requirements on the data."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypedDict, cast, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe.components import Component

Batch = Mapping[str, Tensor]
Interval = Literal["epoch", "step"]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

adam: OptimizerFactory = partial(torch.optim.AdamW, lr=1e-3)


class OptimizerOptions(TypedDict, total=False):
    """Arguments of every framework, besides its own; keys of `framework.kwargs` in a recipe.

    Attributes:
        optimizer: builds the optimizer from the parameters; `call: false` in a recipe.
        scheduler: builds the learning-rate schedule from the optimizer; `call: false` in a recipe. None for a
            constant rate. A schedule that needs a value to follow gets `val_loss`.
        scheduler_interval: whether the schedule advances every epoch or every step.
    """

    optimizer: OptimizerFactory
    scheduler: SchedulerFactory | None
    scheduler_interval: Interval


class TrainingOptions(OptimizerOptions, total=False):
    """Arguments of a framework that computes metrics in validation, besides its own.

    Attributes:
        metrics: name -> torchmetrics.Metric of (prediction, target), logged as `val_<name>`.
    """

    metrics: Mapping[str, Metric] | None


class Framework(pl.LightningModule):
    """A training method: one or more networks, their losses, and how a batch changes them.

    A batch is a mapping with `input` and `target`, float tensors of (batch, channel, (z,) y, x), and, if the recipe
    has weight maps (`data.cost`), `cost` of (batch, 1, (z,) y, x): how much each voxel counts in the loss, 0 for not
    at all. A subclass sets `network`, writes the Lightning steps, and logs `train_loss` and `val_loss`.

    A subclass takes its own arguments and `**options: Unpack[OptimizerOptions]`, or `TrainingOptions` if it computes
    metrics, and passes these on. `inspect.signature` of the class lists them by name, with the defaults of its base.

    Args:
        metrics, optimizer, scheduler, scheduler_interval: see `TrainingOptions`.

    Attributes:
        cite: the work that describes the method; packages cite it.
        uses_weight_maps: whether the loss weights voxels; otherwise recipes with weight maps are refused.
        uses_pairs: whether input and target of a batch must belong together; if so, unpaired images are refused.
        uses_targets: whether it learns from targets; if not, it takes `data.pairing: self` only.
        needs_instance_labels: whether targets have to be instance labels.
        can_rate_patches: whether the training step calls `rate_patches`, so that hard patches can be drawn more often.
        passes_kept: for a method that steps its optimizers itself, about how many passes of the exported network are
            kept at once for their gradients; the batch size is chosen by it.
        network: the network of the recipe.
        rates_patches: whether patch losses are wanted.
        patch_losses: the loss of each patch of the latest batch, (batch,), if they are.
    """

    cite: ClassVar[Citation | None] = None
    uses_weight_maps: ClassVar[bool] = False
    uses_pairs: ClassVar[bool] = True
    uses_targets: ClassVar[bool] = True
    needs_instance_labels: ClassVar[bool] = False
    can_rate_patches: ClassVar[bool] = False
    passes_kept: ClassVar[int] = 1
    network: nn.Module
    rates_patches: bool = False
    patch_losses: Tensor | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """List the options of a subclass in its signature, by which recipes are checked."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Interval = "epoch",
    ) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._scheduler_interval = scheduler_interval

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the optimizer changes: those of `network`."""
        return self.network.parameters()

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, as Lightning takes them."""
        optimizer = self._optimizer(self.trained_parameters())
        if self._scheduler is None:
            return optimizer
        schedule = {
            "scheduler": self._scheduler(optimizer),
            "interval": self._scheduler_interval,
            "monitor": "val_loss",
        }
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def exported_network(self) -> nn.Module:
        """Return the network that a package holds; it maps the model's input to its output."""
        return self.network

    def exported_architecture(self, network: Component) -> Component:
        """Return what the exported network is built from; a state dict is loaded into it.

        Args:
            network: what `network` was built from.
        """
        return network

    def output_channels(self, target_channels: int) -> int:
        """Return the channels of the exported network's output, of which the first are those of the target.

        Args:
            target_channels: channels of the target.
        """
        return target_channels

    def log_training(self, loss: Tensor, size: int, parts: Mapping[str, Tensor] | None = None) -> None:
        """Log a training loss as `train_loss`, for each step and epoch, and its parts for each epoch.

        Args:
            loss: a scalar.
            size: patches of the batch.
            parts: name -> scalar.
        """
        self.log("train_loss", loss.detach(), on_step=True, on_epoch=True, batch_size=size)
        for name, part in (parts or {}).items():
            self.log(name, part.detach(), on_step=False, on_epoch=True, batch_size=size)

    def log_validation(self, loss: Tensor, size: int) -> None:
        """Log a validation loss as `val_loss`, averaged over the epoch.

        Args:
            loss: a scalar.
            size: patches of the batch.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        self.log("val_loss", self.finite(loss, "val_loss"), batch_size=size, sync_dist=True)

    def log_metrics(self, prediction: Tensor, target: Tensor) -> None:
        """Log the metrics as `val_<name>`, accumulated over the epoch.

        Args:
            prediction, target: (batch, channel, (z,) y, x).
        """
        for name, metric in self.metrics.items():
            metric(prediction.float(), target)
            self.log(
                f"val_{name}", cast(Metric, metric), on_step=False, on_epoch=True, batch_size=len(target)
            )

    def rate_patches(self, count: int, loss: Callable[[slice], Tensor]) -> None:
        """Keep the loss of each patch of a batch, if that is wanted; changes no gradient.

        Args:
            count: patches of the batch.
            loss: returns the loss of some patches, from what the network has predicted already.
        """
        if self.rates_patches:
            with torch.no_grad():
                each = [loss(slice(number, number + 1)).detach().float() for number in range(count)]
            self.patch_losses = torch.stack(each)

    def finite(self, loss: Tensor, name: str = "train_loss") -> Tensor:
        """Return a loss unchanged.

        Args:
            loss: a scalar.
            name: of the loss, for the message.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{name} became {loss.item()} in epoch {self.current_epoch}, step {self.global_step}: "
                "lower the learning rate (framework.kwargs.optimizer.kwargs.lr), set "
                "trainer.gradient_clip_val=1, or look for images with extreme values"
            )
        return loss


def _signature(framework: type[Framework]) -> inspect.Signature:
    """Return the signature of a framework, with `**options: Unpack[...]` as arguments by name."""
    _, *own = inspect.signature(framework.__init__).parameters.values()
    if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD and get_args(own[-1].annotation):
        base = next(b for b in framework.__mro__[1:] if issubclass(b, Framework))
        inherited = inspect.signature(base).parameters
        names = get_args(own.pop().annotation)[0].__annotations__
        own += [inherited[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in names]
    return inspect.Signature(own)
