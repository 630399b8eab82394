"""The plan of a prediction: which tiles, what each reads, computes, keeps and writes, and the memory it takes.

It is all that an executor needs to know; it is frozen, printable, and plain data as JSON. It does not say who
runs it: tiles may be run in any order, by any number of processes. It is made in `planning`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from im2im_zoo.runtime.mapping import AxisMap
from im2im_zoo.runtime.memory import Cost, Projection, bytes_text
from im2im_zoo.runtime.tiling import Span

HaloSource = Literal["declared", "given", "measured", "none"]


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """How one axis that the network takes is cut; see `tiling`. Sizes in voxels of the input."""

    name: str
    size: int
    padded: int
    tile: int
    cut: int
    halo: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One run of the network.

    Attributes:
        index: its number in the plan.
        position: where it is on the axes that are looped over.
        reads: voxels of the image, by axis of the network.
        computes: the same in the padded image, which mirrors the image beyond its far ends.
        keeps: voxels of the network's output, by axis, counted from the tile's start.
        writes: the region of the output image, by all of its axes.
    """

    index: int
    position: Mapping[str, int]
    reads: Mapping[str, slice]
    computes: Mapping[str, slice]
    keeps: Mapping[str, slice]
    writes: Mapping[str, slice]


@dataclass(frozen=True)
class Plan:
    """A prediction that can be run.

    Attributes:
        model, version, weights_format: what runs.
        maps: all axes of the image and the model (see `mapping`).
        axes: those that the network takes, cut.
        input_axes, output_axes: of the tensors, in their order.
        image_axes: of the output image, in its order; `image_shape` its size, `dtype` its type.
        channel_names: of the output image, if it has a channel axis.
        halo_source: where the halo comes from.
        whole_before, whole_after: whether an operation before or after the network takes the whole sample at
            once, or after it takes statistics of the whole output.
        memory: the projected peak, and `budget` what it may be.
        cost: what the projection rests on.
        warnings: what a person should know.
    """

    model: str
    version: str | None
    weights_format: str
    maps: tuple[AxisMap, ...]
    axes: tuple[AxisPlan, ...]
    input_axes: tuple[str, ...]
    output_axes: tuple[str, ...]
    image_axes: tuple[str, ...]
    image_shape: tuple[int, ...]
    dtype: str
    channel_names: tuple[str, ...] | None
    halo_source: HaloSource
    whole_before: bool
    whole_after: bool
    memory: Projection
    budget: int
    cost: Cost
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(i) for i in range(len(self)))

    @cached_property
    def loops(self) -> tuple[AxisMap, ...]:
        """The axes that are looped over, the slowest first."""
        return tuple(m for m in self.maps if m.role == "loop")

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return (*(m.size for m in self.loops), *(len(a.spans) for a in self.axes))

    @property
    def tiles_per_sample(self) -> int:
        """Tiles of one position of the loops; tile `i` belongs to the sample `i // tiles_per_sample`."""
        return math.prod(len(a.spans) for a in self.axes)

    @property
    def samples(self) -> int:
        """Positions of the loops."""
        return math.prod(m.size for m in self.loops)

    @property
    def tile_voxels(self) -> int:
        """Voxels that the network computes for a tile."""
        return math.prod(a.tile for a in self.axes)

    @property
    def voxels(self) -> int:
        """Voxels of the image, without channels."""
        return math.prod(m.size for m in (*self.loops, *self.maps_of("tile")))

    @property
    def overhead(self) -> float:
        """Voxels that are computed for each voxel of the image; 1 is the least."""
        return len(self) * self.tile_voxels / self.voxels

    def maps_of(self, role: str) -> tuple[AxisMap, ...]:
        """The axes of a role."""
        return tuple(m for m in self.maps if m.role == role)

    def tile(self, index: int) -> Tile:
        """The tile of a number, 0 to `len(plan) - 1`; the tiles of one sample follow each other."""
        places = np.unravel_index(index, self._counts) if self._counts else ()
        loops = {m.name: int(p) for m, p in zip(self.loops, places, strict=False)}
        chosen = {a.name: a.spans[int(p)] for a, p in zip(self.axes, places[len(self.loops) :], strict=True)}
        scales = {m.name: m for m in self.maps_of("tile")}
        keeps, writes = {}, {axis: slice(p, p + 1) for axis, p in loops.items()}
        for name, span in chosen.items():
            scale, size = scales[name].scale, scales[name].out_size
            start, begin = int(span.inner.start * scale), int(span.outer.start * scale)
            stop = size if span.inner.stop == scales[name].size else int(span.inner.stop * scale)
            keeps[name], writes[name] = slice(start - begin, stop - begin), slice(start, stop)
        for axis, count in zip(self.image_axes, self.image_shape, strict=True):
            writes.setdefault(axis, slice(0, count))
        return Tile(
            index,
            loops,
            {n: s.read for n, s in chosen.items()},
            {n: s.outer for n, s in chosen.items()},
            keeps,
            {a: writes[a] for a in self.image_axes},
        )

    def to_json(self, *, tiles: bool = False) -> dict[str, Any]:
        """Plain data; with `tiles`, each of them."""
        plain = {
            "model": self.model,
            "version": self.version,
            "weights": self.weights_format,
            "axes": [_map_json(m) for m in self.maps],
            "tiling": [_axis_json(a) for a in self.axes],
            "output": {"axes": self.image_axes, "shape": self.image_shape, "dtype": self.dtype},
            "tiles": len(self),
            "overhead": round(self.overhead, 4),
            "halo_source": self.halo_source,
            "whole_before": self.whole_before,
            "whole_after": self.whole_after,
            "memory": self.memory.to_json(),
            "memory_measured": self.cost.measured,
            "budget": self.budget,
            "warnings": self.warnings,
        }
        if tiles:
            plain["list"] = [_tile_json(t) for t in self]
        return json.loads(json.dumps(plain))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        sure = "measured" if self.cost.measured else "guessed: the network was not loaded"
        lines = [
            f"{self.model} {self.version or ''} with its {self.weights_format} weights".replace("  ", " ")
        ]
        lines += [
            f"  {m.name:8} {m.size:>6}  {m.role:8} {m.note}"
            for m in self.maps
            if m.in_image or m.role != "batch"
        ]
        lines.append(f"{len(self)} tiles, {self.overhead:.2f} voxels computed for each of the image:")
        lines += [
            f"  {a.name:8} {len(a.spans):>6} of {a.tile}, halo {a.halo}"
            + (f", padded to {a.padded}" if a.padded > a.size else "")
            for a in self.axes
        ]
        lines.append(f"  halo: {self.halo_source}")
        shape = ", ".join(f"{a} {n}" for a, n in zip(self.image_axes, self.image_shape, strict=True))
        lines.append(f"output: {shape}, {self.dtype}")
        lines.append(
            f"memory: {bytes_text(self.memory.total)} at most ({sure}), of {bytes_text(self.budget)} allowed"
        )
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def _map_json(m: AxisMap) -> dict[str, Any]:
    return {"name": m.name, "role": m.role, "size": m.size, "out_size": m.out_size, "note": m.note}


def _axis_json(a: AxisPlan) -> dict[str, Any]:
    plain = {k: getattr(a, k) for k in ("name", "size", "padded", "tile", "cut", "halo")}
    return {**plain, "count": len(a.spans)}


def _tile_json(t: Tile) -> dict[str, Any]:
    regions = {k: getattr(t, k) for k in ("reads", "computes", "keeps", "writes")}
    plain = {k: {a: [s.start, s.stop] for a, s in region.items()} for k, region in regions.items()}
    return {"index": t.index, "position": dict(t.position), **plain}
