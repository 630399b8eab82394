"""InstanceMaps: instance segmentation by distance, boundary and affinity maps, from which a watershed makes objects.

The watershed itself is in `instances.methods`.
"""

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerOptions
from im2im_zoo.frameworks.supervision import check_instance_labels
from im2im_zoo.losses.instance_maps import KINDS, Kind, channels_of, maps_of, weights_of
from im2im_zoo.losses.weighted import weighted_mean


class InstanceMaps(Framework):
    """Maps of instance labels, after the deep watershed transform (Bai and Urtasun 2017, arXiv:1611.08303).

    The target is instance labels. The maps are computed from the labels of each augmented patch, see
    `losses.instance_maps.maps_of`. The loss is their binary cross-entropy, the same weight for each channel. The recipe's
    output needs the postprocessing `sigmoid`; a watershed then makes objects of the maps. Unlike in the paper, distances
    are learned directly, not as the levels of an energy for which a second network finds directions.

    Args:
        network: maps (batch, channel, (z,) y, x) to logits of the same size, a channel for each of `maps`, for affinities
            one along each axis.
        maps: which, in the order of the channels: "distance", "boundary", "affinities".
        spatial_dims: of the images, 2 or 3.
        reach: steps from the border of an object at which the distance is 1; about half the radius of small objects.
        options: see `OptimizerOptions`.

    Raises:
        TrainingError: an unknown map, another number of axes, or a reach below 1.
    """

    cite = Citation(
        "Bai and Urtasun 2017: Deep Watershed Transform for Instance Segmentation",
        "10.48550/arXiv.1611.08303",
    )
    uses_weight_maps = True
    needs_instance_labels = True

    def __init__(
        self,
        network: nn.Module,
        maps: Sequence[Kind] = ("distance",),
        spatial_dims: Literal[2, 3] = 2,
        reach: int = 4,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(**options)
        if not maps or not set(maps) <= set(KINDS) or reach < 1 or spatial_dims not in (2, 3):
            raise TrainingError(
                f"framework.kwargs: maps is {list(maps)}, spatial_dims {spatial_dims}, reach {reach}; give some of {', '.join(KINDS)}, "
                "2 or 3 axes, and a reach of 1 voxel or more"
            )
        self.network = network
        self._kinds, self._axes, self._reach = list(maps), spatial_dims, reach

    def loss(self, logits: Tensor, target: Tensor, cost: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: the network's output.
            target: instance labels, (batch, 1, (z,) y, x).
            cost: weight of each voxel, of the same shape; None for equal weights.

        Raises:
            TrainingError: the target is not instance labels, or has other axes.
        """
        check_instance_labels(target, "InstanceMaps")
        if target.ndim - 2 != self._axes:
            raise TrainingError(
                f"framework.kwargs.spatial_dims is {self._axes}, but the images have {target.ndim - 2} space axes; set it to that"
            )
        cost = torch.ones_like(target) if cost is None else cost
        maps, weight = maps_of(target, self._kinds, self._reach), weights_of(cost, self._kinds)
        each = F.binary_cross_entropy_with_logits(logits.float(), maps, reduction="none")
        return weighted_mean(each, weight)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self.finite(self.loss(self.network(batch["input"]), batch["target"], batch.get("cost")))
        self.log_training(loss, len(batch["input"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch."""
        loss = self.loss(self.network(batch["input"]), batch["target"], batch.get("cost"))
        self.log_validation(loss, len(batch["input"]))

    def output_channels(self, target_channels: int) -> int:
        """Return the number of maps; affinities are one along each axis."""
        return channels_of(self._kinds, self._axes)
