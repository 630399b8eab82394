"""Instance segmentation by maps that a watershed makes objects of: distances, boundaries, affinities. Groups nothing itself."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.frameworks.supervision import check_instance_labels
from im2im_zoo.losses.instance_maps import KINDS, Kind, channels_of, maps_of, weights_of
from im2im_zoo.losses.weighted import weighted_mean


class InstanceMaps(Framework):
    """Learns maps of instance labels, after the deep watershed transform (Bai and Urtasun 2017, arXiv:1611.08303).

    The target are instance labels, and the maps are made of those of each patch as it comes, augmented and cut:
    `losses.instance_maps.maps_of` says what they are. The loss is binary cross-entropy with these, each channel alike. The
    recipe's output has the postprocessing `sigmoid`, and its maps are what `grouping.watershed.group` takes. Different from the paper:
    distances are learnt by themselves, not as the levels of an energy that a second network finds directions for.

    Args:
        network: maps (batch, channel, (z,) y, x) to logits of the same size, a channel for each of `maps`, for affinities
            one along each axis.
        maps: which, in the order of the channels: "distance", "boundary", "affinities".
        spatial_dims: of the images, 2 or 3.
        reach: steps from the border of an object at which the distance is 1; about half the radius of small objects.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.

    Raises:
        TrainingError: maps that there are not, or a reach below 1.
    """

    uses_cost = True

    def __init__(
        self,
        network: nn.Module,
        maps: Sequence[Kind] = ("distance",),
        spatial_dims: Literal[2, 3] = 2,
        reach: int = 4,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        if not maps or not set(maps) <= set(KINDS) or reach < 1 or spatial_dims not in (2, 3):
            raise TrainingError(
                f"framework.kwargs: maps is {list(maps)}, spatial_dims {spatial_dims}, reach {reach}; give some of {', '.join(KINDS)}, "
                "2 or 3 axes, and a reach of 1 voxel or more"
            )
        self.network = network
        self._kinds, self._axes, self._reach = list(maps), spatial_dims, reach
        self._optimizer, self._scheduler = optimizer, scheduler
        self._scheduler_interval = scheduler_interval

    def loss(self, logits: Tensor, target: Tensor, cost: Tensor | None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: the network's output.
            target: instance labels, (batch, 1, (z,) y, x).
            cost: of the same shape, how much a voxel counts; None: all alike.

        Raises:
            TrainingError: a target that is no instance labels, or has other axes.
        """
        check_instance_labels(target, "InstanceMaps")
        if target.ndim - 2 != self._axes:
            raise TrainingError(
                f"framework.kwargs.spatial_dims is {self._axes}, but the images have {target.ndim - 2} space axes; give that"
            )
        counts = torch.ones_like(target) if cost is None else cost
        wanted, weight = maps_of(target, self._kinds, self._reach), weights_of(counts, self._kinds)
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        return weighted_mean(each, weight)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = self.finite(self.loss(self.network(batch["input"]), batch["target"], batch.get("cost")))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["input"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch."""
        loss = self.loss(self.network(batch["input"]), batch["target"], batch.get("cost"))
        self.log("val_loss", self.finite(loss, "val_loss"), batch_size=len(batch["input"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def output_channels(self, target_channels: int) -> int:
        """One for each map, for affinities one along each axis."""
        return channels_of(self._kinds, self._axes)

    def exported_network(self) -> nn.Module:
        """The network itself; what makes 0 to 1 of its output is in the package's postprocessing."""
        return self.network
