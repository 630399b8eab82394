"""Blend overlapping tiles with Gaussian weights, for networks that no halo makes exact.

The outputs of all tiles are kept until the last is computed. A voxel is the weighted mean of the tiles that cover it, with
the weight exp(-d^2 / 2 s^2), d the distance from the tile's centre and s an eighth of its size along each axis (as in
MONAI's sliding window). It is summed in the order of the tiles, so the result does not depend on the executor.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.images.lazy import Key
from im2im_zoo.runtime.plan.plan import Plan

_SIGMA = 1 / 8
# Far corners weigh e-11 in three axes; smaller weights only add rounding errors.
_LEAST = 1e-6


class TileStore(Protocol):
    """An array of the outputs of tiles: float values of shape (tiles, *output tensor without batch)."""

    def __getitem__(self, region: Any) -> Any: ...


class BlendedSource:
    """The blended output of one sample as a source of regions; see `images.lazy`.

    Args:
        plan: of the prediction.
        number: of the output.
        sample: of the plan.
        kept: outputs of the tiles of all samples.
    """

    def __init__(self, plan: Plan, number: int, sample: int, kept: TileStore) -> None:
        self.path = Path("the network's output")
        self.dtype = np.dtype(np.float32)
        target = plan.outputs[number]
        self.axes = tuple(a for a in target.axes if a != "batch")
        self.shape = tuple(int(target.sizes[a] or 0) for a in self.axes)
        self._kept = kept
        first = sample * plan.tiles_per_sample
        self._tiles = [
            (i, [plan.covers(plan.tile(i), number)[a] for a in self.axes])
            for i in range(first, first + plan.tiles_per_sample)
        ]
        follows = {a for a in self.axes if a in plan.ports and plan.ports[a][1][number] is not None}
        spans = self._tiles[0][1]
        self._weights = [
            _weights(s.stop - s.start) if a in follows else np.ones(s.stop - s.start)
            for a, s in zip(self.axes, spans, strict=True)
        ]

    def read(self, key: Key) -> NDArray[Any]:
        """Read a region; see `Source`."""
        values = self._blend([slice(k.start, k.stop) for k in key])
        return values[tuple(slice(None, None, k.step) for k in key)]

    def _blend(self, region: Sequence[slice]) -> NDArray[np.float32]:
        shape = tuple(r.stop - r.start for r in region)
        total, weight = np.zeros(shape), np.zeros(shape)
        for index, spans in self._tiles:
            common = [
                slice(max(r.start, s.start), min(r.stop, s.stop)) for r, s in zip(region, spans, strict=True)
            ]
            if any(c.start >= c.stop for c in common):
                continue
            inside = [slice(c.start - s.start, c.stop - s.start) for c, s in zip(common, spans, strict=True)]
            target = tuple(
                slice(c.start - r.start, c.stop - r.start) for c, r in zip(common, region, strict=True)
            )
            weights = self._tile_weights(inside)
            total[target] += weights * np.asarray(self._kept[(index, *inside)], dtype=np.float64)
            weight[target] += weights
        return (total / weight).astype(np.float32)

    def _tile_weights(self, inside: Sequence[slice]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.ones([1] * len(inside))
        for place, (part, weights) in enumerate(zip(inside, self._weights, strict=True)):
            result = result * weights[part].reshape([-1 if i == place else 1 for i in range(len(inside))])
        return np.maximum(result, _LEAST)


def _weights(size: int) -> NDArray[np.float64]:
    """Return the weights of a tile along one axis, largest in the middle."""
    distance = np.arange(size) - (size - 1) / 2
    weights: NDArray[np.float64] = np.exp(-(distance**2) / (2 * max(size * _SIGMA, math.ulp(1.0)) ** 2))
    return weights
