"""Differences between the outputs of tiles and of the whole image, by the distance from a cut."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks.cuts import Cut, Run, first_voxel, part, size_along, starts, stops
from im2im_zoo.networks.tensor_axis import TensorAxis

# Share of the distances that is used: too few voxels lie at the far end of a tensor to call a halo sufficient.
_SHOWN = 0.75
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Agreement:
    """Tolerance within which a tile agrees with the whole: `|tile - whole| <= absolute + relative * |whole|`.

    Of a million voxels that tiles keep, `mismatched_per_million` may differ by more. They are counted over the kept part of
    a tile, so that a few voxels at which the output jumps do not require a larger halo.
    """

    relative: float = 1e-3
    absolute: float = 1e-3
    mismatched_per_million: float = 0.0

    def excess(self, tile: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
        """Return differences as fractions of the tolerance: above 1 is too much; NaN equals NaN only."""
        a, b = tile.astype(np.float64), whole.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.abs(a - b) / (self.absolute + self.relative * np.abs(b))
        result[np.isnan(result)] = np.inf
        result[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
        fractions: NDArray[np.float64] = result
        return fractions


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """Largest excess of the voxels at a distance >= d from a cut, d = 0, 1, ..., and whether they agree."""

    worst: NDArray[np.float64]
    within: NDArray[np.bool_]

    @classmethod
    def merged(cls, curves: "Sequence[ErrorCurve]") -> "ErrorCurve":
        """Return the worst of several curves, as long as the longest; for none, an unknown one."""
        longest = max((len(c.worst) for c in curves), default=0)
        if not longest:
            return cls(np.full(1, np.inf), np.zeros(1, bool))
        worst = [np.pad(c.worst, (0, longest - len(c.worst))) for c in curves]
        within = [np.pad(c.within, (0, longest - len(c.within)), constant_values=True) for c in curves]
        return cls(np.max(worst, axis=0), np.all(within, axis=0))

    def first_within(self) -> int | None:
        """Return the smallest distance from which on they agree; None if there is none with enough voxels."""
        found = np.flatnonzero(self.within[: math.ceil(_SHOWN * len(self.within))])
        return int(found[0]) if len(found) else None

    def flat_from(self) -> int:
        """Return the first distance at which the excess is about as small as at three quarters of the distances."""
        limit = 1.25 * float(self.worst[len(self.worst) * 3 // 4])
        return int(np.flatnonzero(self.worst <= limit)[0])


@dataclass(frozen=True, slots=True)
class WholeOutput:
    """Inputs of valid sizes and the output of the network for the whole of them."""

    run: Run
    inputs: list[NDArray[Any] | None]
    outputs: list[NDArray[Any]]
    agree: tuple[Agreement, ...]

    def curve(self, cut: Cut) -> ErrorCurve:
        """Return the differences of a tile that is cut along one axis, by the distance from the cut.

        Raises:
            PackageError: the tile's outputs have other sizes than the RDF declares.
        """
        curves = []
        for index, excess in self._excesses([cut]):
            distance = self._distance(cut, index)
            port = cut.axis.outputs[index]
            if distance is None or port is None:
                # An output without the axis depends on the removed part everywhere.
                length = cut.size
                curves.append(
                    ErrorCurve(
                        np.full(length, excess.max(initial=0.0)), np.full(length, not (excess > 1).any())
                    )
                )
                continue
            others = tuple(i for i in range(excess.ndim) if i != port.dim)
            allowed = self.agree[index].mismatched_per_million * 1e-6
            curves.append(
                _curve(
                    distance, excess.max(axis=others, initial=0.0), (excess > 1).mean(axis=others), allowed
                )
            )
        return ErrorCurve.merged(curves)

    def tile(self, cuts: Sequence[Cut]) -> "TileErrors":
        """Return the differences of a tile; it is run once for all halos that are tried on it."""
        found = [
            (excess, [(c.axis.outputs[index], self._distance(c, index)) for c in cuts], self.agree[index])
            for index, excess in self._excesses(cuts)
        ]
        return TileErrors(tuple(found))

    def _excesses(self, cuts: Sequence[Cut]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield for each output its number and the excess where tile and whole overlap."""
        outputs = self.run(part(self.inputs, cuts))
        for index, (tile, whole) in enumerate(zip(outputs, self.outputs, strict=True)):
            for cut in cuts:
                port = cut.axis.outputs[index]
                if port is not None:
                    first = first_voxel(cut, port)
                    count = min(port.size(cut.size), whole.shape[port.dim] - first)
                    whole = np.take(whole, np.arange(first, first + count), axis=port.dim)
                    tile = np.take(tile, np.arange(min(count, tile.shape[port.dim])), axis=port.dim)
            if tile.shape != whole.shape:
                sizes = ", ".join(f"{c.axis.name} {c.size}" for c in cuts)
                raise PackageError(
                    f"the output {index} has the shape {tile.shape} of an input of {sizes}, where the sizes that the RDF "
                    f"declares give {whole.shape}; correct the RDF's sizes, or run the image in one tile"
                )
            yield index, self.agree[index].excess(tile, whole)

    def _distance(self, cut: Cut, index: int) -> NDArray[np.int64] | None:
        """Return the distance of each position along the axis in the overlap from the cut; None without a cut."""
        port, whole = cut.axis.outputs[index], size_along(self.inputs, cut.axis)
        if port is None:
            return None
        first, end = first_voxel(cut, port), cut.begin + cut.size
        count = min(port.size(cut.size), self.outputs[index].shape[port.dim] - first)
        voxels = np.arange(first, first + count)
        distance = np.full(count, _FAR)
        if cut.begin:
            distance = np.minimum(distance, starts(port, voxels) - cut.begin)
        if end != whole:
            # A tile that extends beyond the whole differs from it because the whole ends there.
            distance = np.minimum(distance, min(end, whole) - stops(port, voxels))
        return distance if cut.begin or end != whole else None


@dataclass(frozen=True, slots=True)
class TileErrors:
    """Excess of a tile in each output, the distances from a cut along each axis, and the tolerance."""

    outputs: tuple[
        tuple[NDArray[np.float64], Sequence[tuple[TensorAxis | None, NDArray[np.int64] | None]], Agreement],
        ...,
    ]

    def without(self, halo: Sequence[int]) -> tuple[float, bool]:
        """Return the largest excess of the tile without its halo at cuts, and whether it agrees.

        (0, True) if nothing is left.
        """
        worst, agrees = 0.0, True
        for excess, places, agree in self.outputs:
            for (port, distance), h in zip(places, halo, strict=True):
                if distance is not None and port is not None:
                    excess = np.compress(distance >= h, excess, axis=port.dim)
            worst = max(worst, float(excess.max(initial=0.0)))
            allowed = agree.mismatched_per_million * 1e-6 * excess.size
            agrees = agrees and int(np.count_nonzero(excess > 1)) <= allowed
        return worst, agrees


def _curve(
    distance: NDArray[np.int64], worst: NDArray[np.float64], mismatched: NDArray[np.float64], allowed: float
) -> ErrorCurve:
    """Return the curve of the differences at each position along an axis; `allowed` is the share that may mismatch."""
    length = max(0, int(distance.max(initial=-1)) + 1)
    at, kept = np.zeros((3, length)), distance >= 0
    np.maximum.at(at[0], distance[kept], worst[kept])
    np.add.at(at[1], distance[kept], mismatched[kept])
    np.add.at(at[2], distance[kept], 1.0)
    largest = np.maximum.accumulate(at[0, ::-1])[::-1]
    share, places = np.cumsum(at[1:, ::-1], axis=1)[:, ::-1]
    return ErrorCurve(largest, share <= allowed * places * (1 + 1e-9))
