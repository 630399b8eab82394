"""Walk a plan in this process: read, preprocess, run the network, postprocess, write. Decides nothing.

each sample (position of the loops):
    statistics of the whole sample            (one streaming pass)
    each tile: read -> preprocess -> mirror at the far end -> network -> keep -> postprocess -> write
where postprocessing needs the whole output (its statistics, or a custom operation):
    each tile: ... -> keep -> scratch; then: statistics of the scratch -> postprocess by blocks -> write
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.engines import Engine
from im2im_zoo.errors import PackageError
from im2im_zoo.processing import Pipeline, fit
from im2im_zoo.runtime.memory import STATISTICS_BLOCK_BYTES
from im2im_zoo.runtime.plan import Plan, Tile
from im2im_zoo.runtime.samples import mirror, read_region, sample_tensor

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Progress = Callable[[int, int], None]


class Sink(Protocol):
    """Where the output goes: regions of the output image, each written once, in any order."""

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region; the block has the axes of the output image."""
        ...


class Scratch(Protocol):
    """An array that keeps the network's output of one sample until it is whole; float32."""

    def __setitem__(self, region: Any, block: NDArray[Any]) -> None: ...
    def __getitem__(self, region: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """What an executor counted: tiles run, voxels written (without channels), values that are not finite."""

    tiles: int
    voxels: int
    not_finite: int


def run_plan(
    plan: Plan,
    package: "Package",
    engine: Engine,
    image: xr.DataArray,
    sink: Sink,
    *,
    scratch: Callable[[tuple[int, ...]], Scratch] | None = None,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> Figures:
    """Run all tiles of a plan, one after the other.

    Args:
        plan: of this package and this image.
        engine: the network, of the plan's weights.
        sink: where the output goes.
        scratch: makes the array for one sample's raw output (default: in memory).
        allow_code: whether `custom` operations of the package may run.
        progress: called with the voxels that are done and those of the image.

    Raises:
        PackageError, ProcessingError, ImageError: what the network, an operation or a file refuses.
    """
    walk = _Walk(plan, package, engine, sink, allow_code, progress)
    for number in range(plan.samples):
        walk.sample(number, image, scratch or _in_memory)
    return Figures(len(plan), walk.done, walk.not_finite)


def _in_memory(shape: tuple[int, ...]) -> Scratch:
    return np.empty(shape, np.float32)


@dataclass
class _Walk:
    """A plan on its way: what does not change from tile to tile, and what is counted."""

    plan: Plan
    package: "Package"
    engine: Engine
    sink: Sink
    allow_code: bool
    progress: Progress | None
    done: int = 0
    not_finite: int = 0

    def sample(
        self, number: int, image: xr.DataArray, new_scratch: Callable[[tuple[int, ...]], Scratch]
    ) -> None:
        tiles = range(number * self.plan.tiles_per_sample, (number + 1) * self.plan.tiles_per_sample)
        raw = sample_tensor(self.plan, image, self.plan.tile(tiles[0]).position)
        references = {str(self.package.inputs[0].id): raw}
        before = self._fit(self.package.inputs[0].preprocessing, raw, references)
        tensor = raw
        if self.plan.whole_before:
            everything = {str(a): slice(0, n) for a, n in raw.sizes.items()}
            tensor, before = before(read_region(raw, everything)), Pipeline()
        shape = self._output_shape()
        if not self.plan.whole_after:
            template = xr.DataArray(np.broadcast_to(np.float32(0), shape), dims=self._output_dims())
            after = self._fit(self.package.outputs[0].postprocessing, template, references)
            for tile in map(self.plan.tile, tiles):
                self._write(tile, after(self._kept(tile, self._network(tile, tensor, before))))
            return
        scratch = new_scratch(shape)
        for tile in map(self.plan.tile, tiles):
            kept = self._kept(tile, self._network(tile, tensor, before))
            scratch[self._region(tile)] = kept.to_numpy()
        self._finish(tiles, scratch, shape, references)

    def _fit(
        self, operations: Sequence[Any], tensor: xr.DataArray, references: Mapping[str, xr.DataArray]
    ) -> Pipeline:
        return fit(
            operations,
            tensor,
            references=references,
            allow_code=self.allow_code,
            root=self.package.root,
            block_bytes=STATISTICS_BLOCK_BYTES,
        )

    def _network(self, tile: Tile, tensor: xr.DataArray, before: Pipeline) -> NDArray[Any]:
        """The network's output for a tile, with the axes of the output tensor."""
        processed = before(read_region(tensor, tile.reads))
        values = processed.to_numpy()
        for axis in self.plan.axes:
            place = processed.dims.index(axis.name)
            values = mirror(values, place, tile.reads[axis.name], tile.computes[axis.name], axis.size)
        if "batch" in self.plan.input_axes:
            values = np.expand_dims(values, self.plan.input_axes.index("batch"))
        outputs = self.engine([np.ascontiguousarray(values)])
        return self._checked(outputs, tile)

    def _checked(self, outputs: list[NDArray[Any]], tile: Tile) -> NDArray[Any]:
        sizes = {m.name: m.out_size for m in self.plan.maps if m.role in ("channel", "batch")}
        scale = {m.name: m.scale for m in self.plan.maps_of("tile")}
        sizes |= {n: int((s.stop - s.start) * scale[n]) for n, s in tile.computes.items()}
        expected = tuple(sizes[a] for a in self.plan.output_axes)
        if len(outputs) != 1 or outputs[0].shape != expected:
            shapes = ", ".join(str(o.shape) for o in outputs)
            raise PackageError(
                f"{self.plan.model}: for a tile the RDF promises an output of shape {expected} ({', '.join(self.plan.output_axes)}), "
                f"but the network gives {shapes}; the package is not sound, tell its authors"
            )
        return outputs[0]

    def _kept(self, tile: Tile, output: NDArray[Any]) -> xr.DataArray:
        """What is kept of a tile: axes of the output tensor without batch, positions as coordinates."""
        if "batch" in self.plan.output_axes:
            output = output.squeeze(self.plan.output_axes.index("batch"))
        dims = self._output_dims()
        part = output[tuple(tile.keeps.get(a, slice(None)) for a in dims)]
        places = dict(zip(dims, self._region(tile), strict=True))
        coords = {a: np.arange(s.start, s.stop) for a, s in places.items()}
        return xr.DataArray(np.ascontiguousarray(part), dims=dims, coords=coords)

    def _region(self, tile: Tile) -> tuple[slice, ...]:
        sizes = dict(zip(self._output_dims(), self._output_shape(), strict=True))
        spans = {
            a: tile.writes[a] if a in tile.keeps and a in tile.writes else slice(0, n)
            for a, n in sizes.items()
        }
        return tuple(spans.values())

    def _finish(
        self,
        tiles: range,
        scratch: Scratch,
        shape: tuple[int, ...],
        references: Mapping[str, xr.DataArray],
    ) -> None:
        from im2im_zoo.images.lazy import lazy_image

        dims = self._output_dims()
        whole = lazy_image(_ScratchSource(scratch, shape), dims)
        whole.attrs["source"] = "the network's output"
        after = self._fit(self.package.outputs[0].postprocessing, whole, references)
        if not after.is_pointwise:
            everything = {a: slice(0, n) for a, n in zip(dims, shape, strict=True)}
            whole, after = after(read_region(whole, everything)), Pipeline()
        for tile in map(self.plan.tile, tiles):
            region = dict(zip(dims, self._region(tile), strict=True))
            self._write(tile, after(read_region(whole, region)))

    def _write(self, tile: Tile, block: xr.DataArray) -> None:
        values = block.to_numpy()
        if values.dtype.kind == "f":
            self.not_finite += int(values.size - np.count_nonzero(np.isfinite(values)))
        kept = [a for a in self.plan.image_axes if a in block.dims]
        dropped = {a: 0 for a in block.dims if a not in kept}
        values = block.isel(dropped).transpose(*kept).to_numpy()
        shape = [s.stop - s.start for s in tile.writes.values()]
        self.sink.write(tile.writes, cast(values.reshape(shape), self.plan.dtype))
        self.done += int(np.prod([s.stop - s.start for a, s in tile.writes.items() if a != "channel"]))
        if self.progress is not None:
            self.progress(self.done, self._total())

    def _total(self) -> int:
        sizes = zip(self.plan.image_axes, self.plan.image_shape, strict=True)
        return int(np.prod([n for a, n in sizes if a != "channel"]))

    def _output_dims(self) -> tuple[str, ...]:
        return tuple(a for a in self.plan.output_axes if a != "batch")

    def _output_shape(self) -> tuple[int, ...]:
        sizes = {m.name: m.out_size for m in self.plan.maps if m.role in ("channel", "tile")}
        return tuple(sizes[a] for a in self._output_dims())


class _ScratchSource:
    """A scratch array as a source of lazy regions."""

    def __init__(self, scratch: Scratch, shape: tuple[int, ...]) -> None:
        from pathlib import Path

        self._scratch = scratch
        self.path = Path("the network's output")
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        return np.asarray(self._scratch[key])


def cast(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The values as the output's type. Integers: rounded and held within the type's range, what is no number is 0."""
    target = np.dtype(dtype)
    if target.kind in "iu" and values.dtype.kind in "iuf":
        limits = np.iinfo(target)
        low, high = limits.min, limits.max
        if values.dtype.kind == "f":
            values = np.nan_to_num(np.rint(values), nan=0.0)
            # The largest integer of 32 bits and more is no floating-point number of that size: the next below is.
            as_float = values.dtype.type(high)
            high = np.nextafter(as_float, values.dtype.type(0)) if int(as_float) > high else as_float
        elif values.dtype.kind in "iu":
            own = np.iinfo(values.dtype)
            low, high = max(low, own.min), min(high, own.max)
        values = np.clip(values, low, high)
    return np.ascontiguousarray(values, dtype=target)
