"""Blind-spot masking of self-supervised denoising: selection of hidden voxels, and their replacement values.

No hidden value is left in the image: replacement values come only from voxels that are not hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from im2im_zoo.core.errors import TrainingError

Strategy = Literal["uniform", "median"]

# Pairs of hidden voxel and neighbour processed at once; limits the memory.
_PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class BlindSpots:
    """Parameters of the masking.

    Attributes:
        fraction: of the voxels of each channel that are predicted; one in each box of `side` voxels along every axis, so
            that they lie apart (the stratified sampling of Krull et al. 2019, arXiv:1811.10980, section 4).
        strategy: `uniform`, the value of a nearby voxel drawn uniformly; or `median`, their median (Höck et al. 2022,
            arXiv:2211.08512). The voxel itself is not among them.
        radius: of the neighbourhood along every axis, voxels.
        extent: for each space axis (z,) y, x, how many voxels before and behind a predicted one are hidden too
            (Broaddus et al. 2020, doi:10.1109/ISBI45749.2020.9098336); None for none.
    """

    fraction: float
    strategy: Strategy = "uniform"
    radius: int = 5
    extent: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.1:
            raise TrainingError(
                f"masked_fraction is {self.fraction}; give more than 0 and at most 0.1, so that hidden voxels lie apart"
            )
        if self.strategy not in ("uniform", "median"):
            raise TrainingError(f"strategy is {self.strategy!r}: choose uniform or median")
        if self.radius < 1 or min(self.extent or [0]) < 0:
            raise TrainingError(
                f"radius is {self.radius} and extent {self.extent}; a radius is 1 voxel or more, an extent 0 or more"
            )

    def side(self, ndim: int) -> int:
        """Return the side of the boxes that have one predicted voxel each, voxels."""
        side: float = self.fraction ** (-1 / ndim)
        return round(side)

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the voxels to predict, separately for each channel; a mask of the image's shape.

        Args:
            image: (batch, channel, (z,) y, x).
            generator: on the image's device; None for torch's global one.

        Raises:
            TrainingError: the image is smaller than a box.
        """
        space = image.shape[2:]
        side = self.side(len(space))
        if min(space) < side:
            raise TrainingError(
                f"patches of {list(space)} voxels are smaller than the boxes of {side} voxels that have one hidden voxel "
                "each; make data.patch_size or framework.kwargs.masked_fraction larger"
            )
        counts = [-(-n // side) for n in space]
        on = image.device
        corners = torch.meshgrid(*(side * torch.arange(n, device=on) for n in counts), indexing="ij")
        shape = (*image.shape[:2], *counts, len(space))
        places = torch.randint(side, shape, generator=generator, device=on) + torch.stack(corners, dim=-1)
        # A box may reach beyond the end; dropping what lies there keeps the draw uniform.
        inside = (places < torch.tensor(space, device=on)).all(dim=-1)
        first = torch.nonzero(inside)[:, :2]
        spots: Tensor = torch.zeros_like(image, dtype=torch.bool)
        spots[(*first.unbind(1), *places[inside].unbind(1))] = True
        return spots

    def hide(self, image: Tensor, spots: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the image with the voxels to predict, and those that `extent` adds, replaced.

        Args:
            image: (batch, channel, (z,) y, x).
            spots: mask of `draw`.
            generator: as in `draw`.

        Raises:
            TrainingError: `extent` has another number of axes, or a hidden voxel has no visible neighbour.
        """
        hidden = self._hidden(spots)
        places = torch.nonzero(hidden)
        offsets = _window(self.radius, image.ndim - 2, image.device)
        parts = torch.split(places, max(1, _PAIRS_AT_ONCE // len(offsets)))
        values = [self._values(image, hidden, part, offsets, generator) for part in parts]
        return image.masked_scatter(hidden, torch.cat(values))

    def _hidden(self, spots: Tensor) -> Tensor:
        """Return the voxels to predict and those that `extent` adds along each axis."""
        if self.extent is None:
            return spots
        if len(self.extent) != spots.ndim - 2:
            raise TrainingError(
                f"framework.kwargs.extent has {len(self.extent)} numbers, but the images have {spots.ndim - 2} space axes; "
                "give one for each"
            )
        hidden = spots.clone()
        for axis, extent in enumerate(self.extent, 2):
            size = spots.shape[axis]
            for shift in range(1, min(extent, size - 1) + 1):
                hidden.narrow(axis, shift, size - shift).logical_or_(spots.narrow(axis, 0, size - shift))
                hidden.narrow(axis, 0, size - shift).logical_or_(spots.narrow(axis, shift, size - shift))
        return hidden

    def _values(
        self,
        image: Tensor,
        hidden: Tensor,
        places: Tensor,
        offsets: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return replacement values, (voxel,), of hidden voxels with the indices `places`, (voxel, axis), batch first."""
        sizes = torch.tensor(image.shape[2:], device=image.device)
        near = places[:, None, 2:] + offsets
        inside = ((near >= 0) & (near < sizes)).all(dim=-1)
        batch, channel = places[:, 0:1], places[:, 1:2]
        index = (batch, channel, *near.clamp(min=torch.zeros_like(sizes), max=sizes - 1).unbind(-1))
        usable = inside & ~hidden[index]
        if not usable.any(dim=1).all():
            raise TrainingError(
                f"a hidden voxel has no visible neighbour within {self.radius} voxels; make framework.kwargs.radius larger, or "
                "extent or masked_fraction smaller"
            )
        found = image[index]
        if self.strategy == "median":
            return _median(found, usable)
        score = torch.rand(usable.shape, generator=generator, device=image.device).masked_fill(~usable, -1)
        return found.gather(1, score.argmax(dim=1, keepdim=True)).squeeze(1)


def _window(radius: int, ndim: int, device: torch.device) -> Tensor:
    """Return the offsets to all voxels of a window except its centre, (voxel, axis)."""
    steps = [step for step in product(range(-radius, radius + 1), repeat=ndim) if any(step)]
    return torch.tensor(steps, device=device)


def _median(values: Tensor, usable: Tensor) -> Tensor:
    """Return the median of the usable values of each row; for an even count the mean of the middle two."""
    ordered = values.masked_fill(~usable, torch.inf).sort(dim=1).values
    count = usable.sum(dim=1, keepdim=True)
    low, high = (ordered.gather(1, (count - 1 + up) // 2) for up in (0, 1))
    return ((low + high) / 2).squeeze(1)
