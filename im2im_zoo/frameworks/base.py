"""What every training framework has in common, and no method of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe.components import Component

Batch = Mapping[str, Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

adam: OptimizerFactory = partial(torch.optim.AdamW, lr=1e-3)


class Framework(pl.LightningModule, ABC):
    """A method of training: one or more networks, their losses, and how a batch changes them.

    A batch is a mapping with `input` and `target`, float tensors of (batch, channel, (z,) y, x), and, if the recipe
    has cost maps, `cost` of (batch, 1, (z,) y, x): how much each voxel counts in the loss, 0 for not at all. A subclass
    writes the Lightning steps and says which network a package holds; it logs `train_loss` and `val_loss`.

    Attributes:
        uses_cost: whether its loss heeds cost maps; a recipe that has them is refused otherwise.
        uses_pairs: whether input and target of a batch have to belong together, so that unpaired images are refused.
        passes_kept: of a method that steps its optimizers itself, how many passes of the exported network are kept at once for their
            gradients, about; a batch is chosen by it.
        uses_targets: whether it learns from targets; if not, it takes `data.pairing: self` and nothing else.
        can_rate_patches: whether its training step calls `rate_patches`, so that hard patches can be drawn more often.
        rates_patches: whether that is wanted.
        patch_losses: the loss of each patch of the latest batch, (batch,), if it is.
    """

    uses_cost: ClassVar[bool] = False
    uses_pairs: ClassVar[bool] = True
    uses_targets: ClassVar[bool] = True
    can_rate_patches: ClassVar[bool] = False
    rates_patches: bool = False
    patch_losses: Tensor | None = None
    passes_kept: ClassVar[int] = 1

    @abstractmethod
    def exported_network(self) -> nn.Module:
        """The network that maps the model's input to its output, as it goes into a package."""

    def exported_architecture(self, network: Component) -> Component:
        """What the exported network is built from, given what `network` was built from; a state dict is loaded into it."""
        return network

    def output_channels(self, target_channels: int) -> int:
        """Channels of the exported network's output where the target has `target_channels`; the first are theirs."""
        return target_channels

    def rate_patches(self, count: int, loss: Callable[[slice], Tensor]) -> None:
        """Keep the loss of each patch of a batch, if that is wanted; it changes no gradient.

        Args:
            count: patches of the batch.
            loss: of some of them, of what the network has predicted already.
        """
        if self.rates_patches:
            with torch.no_grad():
                each = [loss(slice(number, number + 1)).detach().float() for number in range(count)]
            self.patch_losses = torch.stack(each)

    def finite(self, loss: Tensor, name: str = "train_loss") -> Tensor:
        """The loss itself.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{name} became {loss.item()} in epoch {self.current_epoch}, step {self.global_step}: "
                "lower the learning rate (framework.kwargs.optimizer.kwargs.lr), set "
                "trainer.gradient_clip_val=1, or look for images with extreme values"
            )
        return loss


def configured(
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None,
    interval: str,
) -> Any:
    """An optimizer and its schedule in the form that Lightning's `configure_optimizers` returns.

    Args:
        parameters: what to optimize.
        optimizer: makes the optimizer of the parameters.
        scheduler: makes the schedule of the optimizer; None for a constant rate.
        interval: "epoch" or "step", how often the schedule advances.
    """
    built = optimizer(parameters)
    if scheduler is None:
        return built
    schedule = {"scheduler": scheduler(built), "interval": interval, "monitor": "val_loss"}
    return {"optimizer": built, "lr_scheduler": schedule}
