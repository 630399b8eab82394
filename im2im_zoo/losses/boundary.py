"""Boundary loss with voxel weights and voxel sizes; without them it equals `monai.losses.BoundaryLoss`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.classes import ClassLoss
from im2im_zoo.losses.weighted import weighted_mean


class BoundaryLoss(ClassLoss):
    """The mean of probability times signed distance to the target's boundary (Kervadec et al. 2019, arXiv:1812.07032).

    Foreground inside the target is negative, outside it positive, in proportion to the distance from the boundary; the
    minimum is the target itself. It is nearly flat where the prediction is empty, so the paper adds it to an overlap loss.

    Args:
        sigmoid, softmax, include_background: see `ClassLoss`.
        spacing: size of a voxel along (z,) y, x, in any unit; None: 1 each.
    """

    def __init__(
        self,
        sigmoid: bool = False,
        softmax: bool = False,
        include_background: bool = True,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(sigmoid, softmax, include_background)
        self.spacing = spacing

    def compare(self, probability: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the mean of probability times distance; refuse a number of voxel sizes that is not that of the space axes."""
        return weighted_mean(probability * signed_distance(target, self.spacing), weight)


@torch.no_grad()
def signed_distance(target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """Return the distance of each voxel to the boundary, negative inside the target; 0 if the target is empty or full.

    It is the distance to the nearest voxel on the other side, within the target less the smallest voxel size: as in the
    authors' code and MONAI, the outermost voxels of the target are at 0 and those next to it at 1, where voxels are
    cubes.

    Args:
        target: 0 and 1, (batch, class, (z,) y, x).
        spacing: size of a voxel along (z,) y, x; None: 1 each.
    Raises:
        TrainingError: the number of voxel sizes is not that of the space axes.
    """
    from scipy.ndimage import distance_transform_edt

    ndim = target.ndim - 2
    sampling = [1.0] * ndim if spacing is None else [float(size) for size in spacing]
    if len(sampling) != ndim:
        raise TrainingError(
            f"BoundaryLoss: spacing {sampling} has {len(sampling)} numbers, the target {ndim} space axes; give one for each"
        )
    masks = target.cpu().numpy() > 0.5
    distances = np.zeros(masks.shape, np.float32)
    for place in np.ndindex(*masks.shape[:2]):
        mask = masks[place]
        if mask.any() and not mask.all():
            within = distance_transform_edt(mask, sampling) - min(sampling)
            distances[place] = np.where(mask, -within, distance_transform_edt(~mask, sampling))
    return torch.from_numpy(distances).to(target)
