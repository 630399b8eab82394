"""Whether tiles of some inputs give what the whole of them gives, and from which distance to a cut on. It chooses no halo."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks.cuts import Cut, Run, first_voxel, part, size_along, starts, stops
from im2im_zoo.networks.tensor_axis import TensorAxis

# What is seen at the very end of a tensor is too little to say that a halo is enough.
_SHOWN = 0.75
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Agreement:
    """When a tile's output is that of the whole: `|tile - whole| <= absolute + relative * |whole|`.

    Of a million voxels that tiles keep, `mismatched_per_million` may differ by more. They are counted over all that is kept
    of one tile, so that a few voxels at which the output jumps do not ask for a larger halo.
    """

    relative: float = 1e-3
    absolute: float = 1e-3
    mismatched_per_million: float = 0.0

    def excess(self, tile: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
        """Differences as fractions of what is tolerated: above 1 is too much; what is no number equals itself alone."""
        a, b = tile.astype(np.float64), whole.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.abs(a - b) / (self.absolute + self.relative * np.abs(b))
        result[np.isnan(result)] = np.inf
        result[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
        fractions: NDArray[np.float64] = result
        return fractions


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """Of the voxels at a distance >= d from a cut, d = 0, 1, ...: their largest excess, and whether they agree."""

    worst: NDArray[np.float64]
    within: NDArray[np.bool_]

    @classmethod
    def merged(cls, curves: "Sequence[ErrorCurve]") -> "ErrorCurve":
        """The worst of several, as far as the longest of them shows; of none, that nothing is known."""
        longest = max((len(c.worst) for c in curves), default=0)
        if not longest:
            return cls(np.full(1, np.inf), np.zeros(1, bool))
        worst = [np.pad(c.worst, (0, longest - len(c.worst))) for c in curves]
        within = [np.pad(c.within, (0, longest - len(c.within)), constant_values=True) for c in curves]
        return cls(np.max(worst, axis=0), np.all(within, axis=0))

    def first_within(self) -> int | None:
        """The smallest distance from which on they agree; None if there is none that is shown well."""
        found = np.flatnonzero(self.within[: math.ceil(_SHOWN * len(self.within))])
        return int(found[0]) if len(found) else None

    def flat_from(self) -> int:
        """The first distance at which the excess is about as small as it gets three quarters of the way."""
        limit = 1.25 * float(self.worst[len(self.worst) * 3 // 4])
        return int(np.flatnonzero(self.worst <= limit)[0])


@dataclass(frozen=True, slots=True)
class WholeOutput:
    """Inputs of sizes that the network takes, and what it gives of the whole of them."""

    run: Run
    inputs: list[NDArray[Any] | None]
    outputs: list[NDArray[Any]]
    agree: tuple[Agreement, ...]

    def curve(self, cut: Cut) -> ErrorCurve:
        """How a tile that is cut along one axis differs, by the distance from the cut.

        Raises:
            PackageError: the tile's outputs have other sizes than the RDF says.
        """
        curves = []
        for index, excess in self._excesses([cut]):
            distance = self._distance(cut, index)
            port = cut.axis.outputs[index]
            if distance is None or port is None:
                # All of an output that does not have the axis depends on what is cut off.
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
        """How a tile differs from the whole; it is run once, whatever halos are tried on it then."""
        found = [
            (excess, [(c.axis.outputs[index], self._distance(c, index)) for c in cuts], self.agree[index])
            for index, excess in self._excesses(cuts)
        ]
        return TileErrors(tuple(found))

    def _excesses(self, cuts: Sequence[Cut]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """For each output, the excess where the tile and the whole overlap."""
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
        """How far each place along the axis in the overlap is from what is cut; None if nothing is."""
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
            # A tile that goes on beyond the whole differs from it because the whole ends there.
            distance = np.minimum(distance, min(end, whole) - stops(port, voxels))
        return distance if cut.begin or end != whole else None


@dataclass(frozen=True, slots=True)
class TileErrors:
    """A tile of each output: its excess, how far its places are from a cut along each axis, and what is tolerated."""

    outputs: tuple[
        tuple[NDArray[np.float64], Sequence[tuple[TensorAxis | None, NDArray[np.int64] | None]], Agreement],
        ...,
    ]

    def without(self, halo: Sequence[int]) -> tuple[float, bool]:
        """The largest excess of the tile less its halo where it is cut, and whether it agrees.

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
    """The curve of what was found at each place along an axis; `allowed` is the share of the places that may mismatch."""
    length = max(0, int(distance.max(initial=-1)) + 1)
    at, kept = np.zeros((3, length)), distance >= 0
    np.maximum.at(at[0], distance[kept], worst[kept])
    np.add.at(at[1], distance[kept], mismatched[kept])
    np.add.at(at[2], distance[kept], 1.0)
    largest = np.maximum.accumulate(at[0, ::-1])[::-1]
    share, places = np.cumsum(at[1:, ::-1], axis=1)[:, ::-1]
    return ErrorCurve(largest, share <= allowed * places * (1 + 1e-9))
