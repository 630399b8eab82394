"""The plan of a prediction: its tiles, the regions that each reads, computes, keeps and writes, and the memory.

A plan is frozen, printable and exportable as JSON. Its tiles can be run in any order by any number of processes. See
`planning` for how plans are made.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.networks.tensor_axis import TensorAxis
from im2im_zoo.runtime.layout.image_layout import AxisMap, InputMap, Layout, OutputMap
from im2im_zoo.runtime.layout.tiling import Span
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.memory import Cost, Projection

HaloSource = Literal["declared", "given", "test tensor", "receptive field", "blending", "none"]

Region = Mapping[str, slice]


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """The tiles along one axis of the network, in voxels of the reference; see `tiling`.

    Attributes:
        name: of the axis.
        size: of the image.
        padded: smallest size of the network's grid that holds the image.
        tile: of a tile, halo included.
        cut: voxels of a tile that are kept.
        halo: voxels at each end that are discarded.
        spans: the tiles.
    """

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
        index: number in the plan.
        position: on the looped axes.
        computes: region that the network computes, in voxels of the reference; padded beyond the image.
        keeps: region that is kept, in voxels of the reference.
    """

    index: int
    position: Mapping[str, int]
    computes: Region
    keeps: Region


@dataclass(frozen=True)
class Plan:
    """The plan of a prediction.

    Attributes:
        model, version: name and version of the package.
        weights_format, backend, precision: the selected weights, library and number type.
        layout: all axes, inputs and outputs.
        axes: axes of the network, with their tiles.
        halo_source: origin of the halo; `halo_note` explains it in a sentence.
        blend: whether overlapping tiles are averaged, as no halo makes them exact.
        whole_before: inputs whose preprocessing needs the whole sample at once.
        whole_after: outputs whose postprocessing needs the whole output or its statistics.
        memory: the projected peak.
        budget: allowed peak, in bytes.
        cost: of the network, on which the projection is based.
        workers: number of processes.
        warnings: for the user.
        grouping: the instance segmentation of the only output, if there is one.
    """

    model: str
    version: str | None
    weights_format: str
    backend: str
    precision: str
    layout: Layout
    axes: tuple[AxisPlan, ...]
    halo_source: HaloSource
    halo_note: str
    blend: bool
    whole_before: frozenset[str]
    whole_after: frozenset[str]
    memory: Projection
    budget: int
    cost: Cost
    workers: int = 1
    warnings: tuple[str, ...] = ()
    grouping: GroupPlan | None = None

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(i) for i in range(len(self)))

    @property
    def maps(self) -> tuple[AxisMap, ...]:
        """All axes of images and model."""
        return self.layout.maps

    @property
    def inputs(self) -> tuple[InputMap, ...]:
        """The input tensors, including those without an image."""
        return self.layout.inputs

    @property
    def outputs(self) -> tuple[OutputMap, ...]:
        """The output tensors."""
        return self.layout.outputs

    @cached_property
    def loops(self) -> tuple[AxisMap, ...]:
        """The looped axes, the slowest first."""
        return self.layout.of_role("loop")

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return (*(m.size for m in self.loops), *(len(a.spans) for a in self.axes))

    @property
    def tiles_per_sample(self) -> int:
        """Number of tiles of one sample; tile `i` belongs to the sample `i // tiles_per_sample`."""
        return math.prod(len(a.spans) for a in self.axes)

    @property
    def samples(self) -> int:
        """Number of samples: positions on the looped axes."""
        return math.prod(m.size for m in self.loops)

    @property
    def tile_voxels(self) -> int:
        """Voxels of the reference that the network computes per tile."""
        return math.prod(a.tile for a in self.axes)

    @property
    def voxels(self) -> int:
        """Voxels of the reference, without channels."""
        return math.prod((*(m.size for m in self.loops), *(a.size for a in self.axes)))

    @property
    def output_bytes(self) -> int:
        """Bytes of all output images, uncompressed, without pyramids and outputs whose size depends on the data."""
        return sum(
            math.prod(o.image_shape) * np.dtype(o.dtype).itemsize for o in self.outputs if o.image_shape
        )

    @property
    def overhead(self) -> float:
        """Computed voxels per voxel of the image; 1 is the minimum."""
        return len(self) * self.tile_voxels / self.voxels

    @property
    def cuts(self) -> dict[str, dict[str, int]]:
        """Tile, step and halo per axis; enough to rebuild the same tiling."""
        return {a.name: {"tile": a.tile, "cut": a.cut, "halo": a.halo} for a in self.axes}

    @property
    def is_cut(self) -> bool:
        """Whether a sample has more than one tile."""
        return self.tiles_per_sample > 1

    def tile(self, index: int) -> Tile:
        """Return the tile of a number from 0 to `len(plan) - 1`; the tiles of one sample are consecutive."""
        places = np.unravel_index(index, self._counts) if self._counts else ()
        loops = {m.name: int(p) for m, p in zip(self.loops, places, strict=False)}
        chosen = {a.name: a.spans[int(p)] for a, p in zip(self.axes, places[len(self.loops) :], strict=True)}
        return Tile(
            index, loops, {n: s.outer for n, s in chosen.items()}, {n: s.inner for n, s in chosen.items()}
        )

    def position(self, sample: int) -> dict[str, int]:
        """Return the position of a sample on the looped axes."""
        sizes = tuple(m.size for m in self.loops)
        places = np.unravel_index(sample, sizes) if sizes else ()
        return {m.name: int(p) for m, p in zip(self.loops, places, strict=True)}

    @cached_property
    def ports(self) -> Mapping[str, tuple[tuple[TensorAxis | None, ...], tuple[TensorAxis | None, ...]]]:
        """The `TensorAxis` of each input and output tensor, by name of the axis; None if the tensor lacks it."""
        return {
            m.name: (m.network.inputs, m.network.outputs)
            for m in self.layout.network_axes
            if m.network is not None
        }

    def reads(self, tile: Tile, number: int) -> dict[str, slice]:
        """Return the region of an input's image that a tile reads, which may extend beyond the image.

        Args:
            tile: of this plan.
            number: of the input, from 0.

        Returns:
            Slices by axis of the tensor except batch.
        """
        source = self.inputs[number]
        region = {}
        for name in source.axes:
            if name == "batch":
                continue
            port = self.ports[name][0][number] if name in self.ports else None
            if port is None:
                region[name] = slice(0, source.sizes[name])
                continue
            outer = tile.computes[name]
            start = int(outer.start * port.scale) + port.shift
            region[name] = slice(start, start + port.size(outer.stop - outer.start))
        return region

    def gives(self, tile: Tile, number: int) -> tuple[int | None, ...]:
        """Return the shape of a tile's output tensor; None along axes that depend on the data."""
        target = self.outputs[number]
        shape: list[int | None] = []
        for name in target.axes:
            port = self.ports[name][1][number] if name in self.ports else None
            if name == "batch":
                shape.append(1)
            elif port is None:
                shape.append(target.sizes[name])
            else:
                outer = tile.computes[name]
                shape.append(port.size(outer.stop - outer.start))
        return tuple(shape)

    def keeps(self, tile: Tile, number: int) -> dict[str, slice]:
        """Return the region of a tile's output tensor that is kept, by axis except batch."""
        kept = {}
        for name, region in self.region(tile, number).items():
            begin = self._begin(tile, name, number)
            kept[name] = slice(region.start - begin, region.stop - begin)
        return kept

    def covers(self, tile: Tile, number: int) -> dict[str, slice]:
        """Return the region of the sample's whole output that a tile's output tensor covers, by axis except batch.

        It may extend beyond the whole output.
        """
        region = {}
        for name, length in zip(self.outputs[number].axes, self.gives(tile, number), strict=True):
            if name != "batch":
                begin = self._begin(tile, name, number)
                region[name] = slice(begin, begin + (length or 0))
        return region

    def _begin(self, tile: Tile, name: str, number: int) -> int:
        """Return the start of a tile's output tensor in the sample's whole output."""
        port = self.ports[name][1][number] if name in self.ports else None
        return 0 if port is None else int(tile.computes[name].start * port.scale) + port.shift

    def region(self, tile: Tile, number: int) -> dict[str, slice]:
        """Return the region of the sample's whole output that a tile keeps, by axis except batch."""
        target = self.outputs[number]
        sizes = {a.name: a.size for a in self.axes}
        region = {}
        for name in target.axes:
            if name == "batch":
                continue
            port = self.ports[name][1][number] if name in self.ports else None
            whole = target.sizes[name]
            if port is None or whole is None:
                region[name] = slice(0, whole)
                continue
            kept = tile.keeps[name]
            stop = whole if kept.stop == sizes[name] else int(kept.stop * port.scale)
            region[name] = slice(int(kept.start * port.scale), stop)
        return region

    def writes(self, tile: Tile, number: int) -> dict[str, slice]:
        """Return the region of an output image that a tile writes, by axis of the image."""
        target = self.outputs[number]
        region = self.region(tile, number) | {a: slice(p, p + 1) for a, p in tile.position.items()}
        return {a: region[a] for a in target.image_axes}

    def chunk_limits(self, number: int) -> dict[str, int]:
        """Return the voxels per axis that chunks of an output image must divide, so that no two tiles share a chunk.

        Axes that every tile writes from end to end are left out.
        """
        limits = {m.name: 1 for m in self.loops}
        for axis in self.axes:
            port = self.ports[axis.name][1][number]
            if len(axis.spans) > 1 and port is not None:
                limits[axis.name] = int(axis.cut * port.scale)
        return {a: n for a, n in limits.items() if a in self.outputs[number].image_axes}

    def to_json(self, *, tiles: bool = False) -> dict[str, Any]:
        """Return the plan as JSON values, with a list of all tiles if `tiles` is set."""
        plain = {
            "model": self.model,
            "version": self.version,
            "weights": self.weights_format,
            "backend": self.backend,
            "precision": self.precision,
            "axes": [_map_json(m) for m in self.maps],
            "tiling": [_axis_json(a) for a in self.axes],
            "inputs": [_input_json(i) for i in self.inputs],
            "outputs": [_output_json(o) for o in self.outputs],
            "tiles": len(self),
            "overhead": round(self.overhead, 4),
            "strategy": "blend" if self.blend else "exact tiles" if self.is_cut else "whole",
            "halo_source": self.halo_source,
            "halo_note": self.halo_note,
            "whole_before": sorted(self.whole_before),
            "whole_after": sorted(self.whole_after),
            "grouping": None if self.grouping is None else self.grouping.to_json(),
            "workers": self.workers,
            "memory": self.memory.to_json(),
            "memory_measured": self.cost.measured,
            "budget": self.budget,
            "warnings": self.warnings,
        }
        if tiles:
            plain["list"] = [self._tile_json(t) for t in self]
        return json.loads(json.dumps(plain))  # type: ignore[no-any-return]

    def _tile_json(self, tile: Tile) -> dict[str, Any]:
        given = [i for i, source in enumerate(self.inputs) if source.given]
        return {
            "index": tile.index,
            "position": dict(tile.position),
            "computes": _region_json(tile.computes),
            "keeps": _region_json(tile.keeps),
            "reads": {self.inputs[i].id: _region_json(self.reads(tile, i)) for i in given},
            "writes": {o.id: _region_json(self.writes(tile, i)) for i, o in enumerate(self.outputs)},
        }

    def __str__(self) -> str:
        sure = "measured" if self.cost.measured else "estimated without loading the network"
        lines = [
            f"{self.model} {self.version or ''} with its {self.weights_format} weights".replace("  ", " ")
            + f", run by {self.backend} in {self.precision}"
        ]
        lines += [
            f"  {m.name:8} {m.size:>6}  {m.role:8} {m.note}"
            for m in self.maps
            if m.in_image or m.role != "batch"
        ]
        many = f"{len(self)} tiles, {self.overhead:.2f} computed voxels per voxel of the image:"
        lines.append(many if len(self) > 1 else "1 tile, the whole image at once:")
        lines += [
            f"  {a.name:8} {len(a.spans):>6} of {a.tile}, halo {a.halo}"
            + (f", padded to {a.padded}" if a.padded > a.size else "")
            for a in self.axes
        ]
        lines += [
            f"  {name}: preprocessed as a whole, before the tiles" for name in sorted(self.whole_before)
        ]
        lines.append(f"  halo: {self.halo_source}" + (f" ({self.halo_note})" if self.halo_note else ""))
        if self.blend:
            lines.append(
                "  strategy: tiles overlap and are blended (Gaussian weights); the result differs from that of the whole image"
            )
        for output in self.outputs:
            lines.append(
                f"output {output.id}: {_shape_text(output.image_axes, output.image_shape)}, {output.dtype}"
            )
        if self.grouping is not None:
            lines += _grouping_lines(self.grouping, self.samples)
        processes = f", {self.workers} processes" if self.workers > 1 else ""
        lines.append(
            f"memory: {bytes_text(self.memory.total)} at most ({sure}), of {bytes_text(self.budget)} allowed{processes}"
        )
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def _shape_text(axes: Sequence[str], shape: Sequence[int] | None) -> str:
    sizes = shape or ("?",) * len(axes)
    return ", ".join(f"{a} {n}" for a, n in zip(axes, sizes, strict=True)) or "one value"


def _grouping_lines(grouping: GroupPlan, samples: int) -> list[str]:
    how, each = grouping.grouping, "" if samples == 1 else f", {samples} times"
    given = ", ".join(f"{key}={value!r}" for key, value in how.kwargs.items())
    where = "the whole image at once" if grouping.block is None else _blocks_text(grouping)
    return [
        f"then instance segmentation by {how.source}, {where}{each}: {how.callable}({given})",
        f"labels {INSTANCES}: {_shape_text(grouping.axes, grouping.shape)}, {grouping.dtype}; this step needs "
        f"{bytes_text(grouping.bytes)} for maps and labels",
    ]


def _blocks_text(grouping: GroupPlan) -> str:
    sides = " x ".join(str(side) for side in grouping.block or ())
    if grouping.exact:
        return f"in blocks of {sides}, with the same labels as the whole image"
    return f"in blocks of {sides} with an overlap as large as the objects need"


def _map_json(m: AxisMap) -> dict[str, Any]:
    return {"name": m.name, "role": m.role, "size": m.size, "note": m.note}


def _axis_json(a: AxisPlan) -> dict[str, Any]:
    plain = {k: getattr(a, k) for k in ("name", "size", "padded", "tile", "cut", "halo")}
    return {**plain, "count": len(a.spans)}


def _input_json(i: InputMap) -> dict[str, Any]:
    return {
        "id": i.id,
        "axes": i.axes,
        "given": i.given,
        "sizes": dict(i.sizes),
        "dtype": i.dtype,
        "pad": i.pad,
    }


def _output_json(o: OutputMap) -> dict[str, Any]:
    return {"id": o.id, "axes": o.image_axes, "shape": o.image_shape, "dtype": o.dtype}


def _region_json(region: Region) -> dict[str, list[int]]:
    return {a: [s.start, s.stop] for a, s in region.items()}
