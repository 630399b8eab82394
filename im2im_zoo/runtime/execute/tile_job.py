"""Read, preprocess, run, postprocess and write one tile.

each sample (position on the looped axes): statistics of the whole sample, one streaming pass      (`sample_maker`)
each tile: read -> preprocess -> pad beyond the ends -> network -> keep -> postprocess -> write     (`TileJob`)
where postprocessing needs the whole output, or tiles are blended:
    each tile: ... -> keep -> scratch; after the last: postprocess by blocks -> write    (`finish_job`)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.allocator import PeriodicTrim
from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines import Engine
from im2im_zoo.images.sink import Sink
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.samples import read_padded
from im2im_zoo.runtime.plan.plan import Plan, Tile

Tensors = list[NDArray[Any] | None]


class Scratch(Protocol):
    """An array that keeps the network's outputs until all tiles are computed."""

    def __setitem__(self, region: Any, block: NDArray[Any]) -> None: ...
    def __getitem__(self, region: Any) -> Any: ...


class Report(NamedTuple):
    """Counts of a tile: voxels written (without channels), and values that are NaN or infinite."""

    voxels: int
    not_finite: int


class TileJob:
    """The job of running the tiles of a plan (see `core.jobs.Job`).

    Args:
        samples: of the plan.
        engine: the network with the plan's weights.
        sinks: writers of the outputs.
        scratch: arrays for outputs of the stage `finish`, by the number of the output.
    """

    def __init__(
        self, samples: SampleMaker, engine: Engine, sinks: Sequence[Sink], scratch: Mapping[int, Scratch]
    ) -> None:
        self.plan = samples.plan
        self._samples = samples
        self._engine = engine
        self._sinks = sinks
        self._scratch = scratch
        self._memory_trim = PeriodicTrim()

    def read(self, unit: int) -> Tensors:
        """Return the network's inputs for a tile."""
        tile = self.plan.tile(unit)
        sample = self._samples(unit // self.plan.tiles_per_sample)
        inputs: Tensors = []
        for number, source in enumerate(self.plan.inputs):
            tensor = sample.tensors[number]
            if tensor is None:
                inputs.append(None)
                continue
            values = read_padded(tensor, self.plan.reads(tile, number), sample.before[number], source)
            if "batch" in source.axes:
                values = np.expand_dims(values, source.axes.index("batch"))
            inputs.append(np.ascontiguousarray(values))
        return inputs

    def cancel(self) -> None:
        """Stop the statistics of a sample, which are computed when its first tile is read."""
        self._samples.cancel()

    def compute(self, unit: int, data: Tensors) -> list[NDArray[Any]]:
        """Return the network's outputs for a tile.

        Raises:
            PackageError: the network fails, or its outputs do not have the RDF's shapes.
        """
        outputs = self._engine(data)
        self._check_shapes(outputs, self.plan.tile(unit))
        return outputs

    def write(self, unit: int, data: list[NDArray[Any]]) -> Report:
        """Postprocess and write the kept region of a tile, or store it for the stage `finish`."""
        tile, report = self.plan.tile(unit), Report(0, 0)
        for number, values in enumerate(data):
            target = self.plan.outputs[number]
            if "batch" in target.axes:
                values = values.squeeze(target.axes.index("batch"))
            if number in self._scratch and self.plan.blend:
                self._scratch[number][(unit, *(slice(None) for _ in values.shape))] = values
            elif number in self._scratch:
                region = tuple(self.plan.region(tile, number).values())
                sample = unit // self.plan.tiles_per_sample
                kept = values[tuple(self.plan.keeps(tile, number).values())]
                self._scratch[number][(sample, *region)] = kept
            else:
                report = _sum(report, self._postprocess_and_write(tile, number, values))
        self._memory_trim.trim()
        return report

    def _postprocess_and_write(self, tile: Tile, number: int, values: NDArray[Any]) -> Report:
        block = _kept_block(self.plan, tile, number, values)
        sample = tile.index // self.plan.tiles_per_sample
        whole = block if self.plan.outputs[number].id in self.plan.whole_after else None
        after = self._samples.after(sample, number, whole)
        return write_block(self.plan, tile, number, after(block), self._sinks[number])

    def _check_shapes(self, outputs: list[NDArray[Any]], tile: Tile) -> None:
        expected = [self.plan.gives(tile, n) for n in range(len(self.plan.outputs))]
        fits = len(outputs) == len(expected) and all(
            o.ndim == len(e) and all(n in (have, None) for n, have in zip(e, o.shape, strict=True))
            for o, e in zip(outputs, expected, strict=True)
        )
        if not fits:
            shapes = ", ".join(str(o.shape) for o in outputs)
            promised = ", ".join(
                f"{tuple('?' if n is None else n for n in e)} ({', '.join(o.axes)})".replace("'", "")
                for e, o in zip(expected, self.plan.outputs, strict=True)
            )
            raise PackageError(
                f"{self.plan.model}: for a tile, the RDF declares outputs of shape {promised}, "
                f"but the network returns {shapes}; the package is invalid; please report this to its authors"
            )


def write_block(plan: Plan, tile: Tile, number: int, block: xr.DataArray, sink: Sink) -> Report:
    """Write the kept, postprocessed block of a tile into an output.

    Raises:
        PackageError: the block does not have the RDF's shape.
        ImageError: the block cannot be written.
    """
    target = plan.outputs[number]
    values = block.to_numpy()
    finite = values.size if values.dtype.kind != "f" else int(np.count_nonzero(np.isfinite(values)))
    loops = set(tile.position)
    if target.image_shape is None or not target.image_shape:
        place = {a: slice(p, p + 1) for a, p in tile.position.items()}
        sink.write(place, cast(values, target.dtype))
        return Report(1, values.size - finite)
    kept = [a for a in target.image_axes if a not in loops]
    dropped = {a: 0 for a in block.dims if a not in kept}
    ordered = block.isel(dropped).transpose(*kept).to_numpy()
    region = plan.writes(tile, number)
    shape = [s.stop - s.start for s in region.values()]
    sizes = [block.sizes[a] if a in block.dims else 1 for a in target.image_axes]
    if int(np.prod(shape)) != ordered.size:
        raise PackageError(
            f"{plan.model}: the postprocessing of {target.id} returns {dict(zip(target.image_axes, sizes, strict=True))} values "
            f"where the RDF declares {shape}; the package is invalid; please report this to its authors"
        )
    sink.write(region, cast(ordered.reshape(shape), target.dtype))
    voxels = int(np.prod([s.stop - s.start for a, s in region.items() if a != "channel"]))
    return Report(voxels, values.size - finite)


def _kept_block(plan: Plan, tile: Tile, number: int, values: NDArray[Any]) -> xr.DataArray:
    """Return the kept region of a tile's output without batch, with positions in the whole output as coordinates."""
    target = plan.outputs[number]
    dims = tuple(a for a in target.axes if a != "batch")
    if None in target.sizes.values():
        return xr.DataArray(values, dims=dims)
    region, keeps = plan.region(tile, number), plan.keeps(tile, number)
    part = np.asarray(values[tuple(keeps[a] for a in dims)], order="C")
    coords = {a: np.arange(region[a].start, region[a].stop) for a in dims}
    return xr.DataArray(part, dims=dims, coords=coords)


def _sum(a: Report, b: Report) -> Report:
    return Report(a.voxels + b.voxels, a.not_finite + b.not_finite)


def cast(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Cast values to an output's type; for integers, round and clip to the type's range, and replace NaN by 0."""
    target = np.dtype(dtype)
    if target.kind in "iu" and values.dtype.kind in "iuf":
        limits = np.iinfo(target)
        low, high = limits.min, limits.max
        if values.dtype.kind == "f":
            values = np.nan_to_num(np.rint(values), nan=0.0)
            # The largest integer of 32 bits or more may have no float of that type; use the next smaller float.
            as_float = values.dtype.type(high)
            high = np.nextafter(as_float, values.dtype.type(0)) if int(as_float) > high else as_float
        elif values.dtype.kind in "iu":
            own = np.iinfo(values.dtype)
            low, high = max(low, own.min), min(high, own.max)
        values = np.clip(values, low, high)
    return np.asarray(values, dtype=target, order="C")


def scratch_shape(plan: Plan, number: int) -> tuple[int, ...]:
    """Return the shape of an output's scratch array: (samples, *output), or (tiles, *tile's output) if blended."""
    target = plan.outputs[number]
    if plan.blend:
        gives = plan.gives(plan.tile(0), number)
        return (len(plan), *(int(n or 0) for a, n in zip(target.axes, gives, strict=True) if a != "batch"))
    return (plan.samples, *(int(target.sizes[a] or 0) for a in target.axes if a != "batch"))


def scratch_outputs(plan: Plan) -> tuple[int, ...]:
    """Return the numbers of the outputs that need all tiles before they are finished."""
    if not plan.is_cut:
        return ()
    return tuple(n for n, o in enumerate(plan.outputs) if plan.blend or o.id in plan.whole_after)
