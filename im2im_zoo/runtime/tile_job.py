"""What is done with a tile: read and preprocess, run the network, postprocess and write. Decides nothing, counts little.

each sample (position of the loops): statistics of the whole sample, one streaming pass      (`SampleMaker`)
each tile: read -> preprocess -> pad beyond the ends -> network -> keep -> postprocess -> write     (`TileJob`)
where postprocessing needs the whole output, or tiles are blended:
    each tile: ... -> keep -> scratch; when all are there: postprocess by blocks -> write    (`finish_job`)
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.engines import Engine
from im2im_zoo.errors import PackageError
from im2im_zoo.images import open_image
from im2im_zoo.processing import Pipeline, fit
from im2im_zoo.processing.requirements import passes
from im2im_zoo.runtime.allocator import NowAndThen
from im2im_zoo.runtime.mapping import InputMap
from im2im_zoo.runtime.memory import STATISTICS_BLOCK_BYTES
from im2im_zoo.runtime.plan import Plan, Tile
from im2im_zoo.runtime.samples import read_padded, read_region, sample_tensor

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Tensors = list[NDArray[Any] | None]


class Sink(Protocol):
    """Where an output goes: regions of the output image, each written once, in any order."""

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region; the block has the axes of the output image."""
        ...


class Scratch(Protocol):
    """An array that keeps the network's outputs until all are there."""

    def __setitem__(self, region: Any, block: NDArray[Any]) -> None: ...
    def __getitem__(self, region: Any) -> Any: ...


class Report(NamedTuple):
    """What was done with a tile: voxels written (without channels), and values of them that are not finite."""

    voxels: int
    not_finite: int


@dataclass(frozen=True)
class Sample:
    """One sample, ready for its tiles.

    Attributes:
        position: on the axes that are looped over.
        tensors: the RDF's, lazy, or processed and whole where `before` is empty; None for an input without an image.
        before: their preprocessing, with every statistic known.
        references: the RDF's tensors, to which postprocessing may refer.
    """

    position: Mapping[str, int]
    tensors: tuple[xr.DataArray | None, ...]
    before: tuple[Pipeline, ...]
    references: Mapping[str, xr.DataArray]


class SampleMaker:
    """Makes the samples of a plan, and keeps the last two: a reader may be one ahead of a writer.

    Args:
        plan: of this package and these images.
        images: by input.
        allow_code: whether `custom` operations of the package may run.
        measured: statistics by sample and tensor, filled as they are taken, and used if they are there.
        folder: where tensors that are processed whole are kept, for other processes too (default: in memory).
        progress: called with the values of the first sample that were read for its statistics, and all that will be.
    """

    def __init__(
        self,
        plan: Plan,
        package: "Package",
        images: Mapping[str, xr.DataArray],
        *,
        allow_code: bool = False,
        measured: MutableMapping[str, Any] | None = None,
        folder: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.plan = plan
        self.package = package
        self.images = images
        self.allow_code = allow_code
        self.measured = {} if measured is None else measured
        self._folder = folder
        self._after: dict[tuple[int, int], Pipeline] = {}
        self._made: dict[int, Sample] = {}
        self._lock = Lock()
        self._progress = progress
        self._counted, self._to_count = 0, 0

    def __call__(self, number: int) -> Sample:
        """The sample of a number; thread-safe."""
        with self._lock:
            if number not in self._made:
                made = self._make(number)
                for old in sorted(self._made, key=lambda n: abs(n - number))[1:]:
                    del self._made[old]
                    self._after = {k: v for k, v in self._after.items() if k[0] != old}
                self._made[number] = made
            return self._made[number]

    def after(self, number: int, output: int, tensor: xr.DataArray | None = None) -> Pipeline:
        """The postprocessing of an output of a sample.

        Args:
            tensor: the whole output, of which statistics are taken; None if there are none to take.
        """
        target, references = self.package.outputs[output], self(number).references
        if tensor is not None:
            return self.fit(f"{number}/{target.id}", target.postprocessing, tensor, references)
        key = (number, output)
        if key not in self._after:
            self._after[key] = self.fit(
                f"{number}/{target.id}", target.postprocessing, _stand_in(self.plan, output), references
            )
        return self._after[key]

    def fit(
        self,
        key: str,
        operations: Sequence[Any],
        tensor: xr.DataArray,
        references: Mapping[str, xr.DataArray],
    ) -> Pipeline:
        """Operations with their statistics, which are known by the key of sample and tensor."""
        return fit(
            operations,
            tensor,
            references=references,
            allow_code=self.allow_code,
            root=self.package.root,
            block_bytes=STATISTICS_BLOCK_BYTES,
            measured=self.measured.setdefault(key, {}),
        )

    def _make(self, number: int) -> Sample:
        position = self.plan.position(number)
        raw = {i.id: self._tensor(number, i) for i in self.plan.inputs if i.given}
        self._expect(number, raw)
        tensors: list[xr.DataArray | None] = []
        pipelines = []
        for source, spec in zip(self.plan.inputs, self.package.inputs, strict=True):
            if not source.given:
                tensors.append(None)
                pipelines.append(Pipeline())
                continue
            tensor = raw[source.id]
            before = self.fit(f"{number}/{source.id}", spec.preprocessing, tensor, raw)
            if not before.is_pointwise:
                tensor, before = self._whole(f"{number}_{source.id}", tensor, before), Pipeline()
            tensors.append(tensor)
            pipelines.append(before)
        self._progress = None
        return Sample(position, tuple(tensors), tuple(pipelines), raw)

    def _expect(self, number: int, raw: Mapping[str, xr.DataArray]) -> None:
        """Count what is read for the statistics of a sample that are not known yet."""
        self._counted = self._to_count = 0
        for source, spec in zip(self.plan.inputs, self.package.inputs, strict=True):
            if source.given and not self.measured.get(f"{number}/{source.id}"):
                tensor = raw[source.id]
                self._to_count += passes(spec.preprocessing, tensor.dtype) * tensor.size

    def _count(self, values: int) -> None:
        if self._progress is not None and self._to_count:
            self._counted = min(self._counted + values, self._to_count)
            self._progress(self._counted, self._to_count)

    def _tensor(self, number: int, source: InputMap) -> xr.DataArray:
        """The RDF's tensor of an input: its image, or what the custom operations before the RDF's own make of it."""
        tensor = sample_tensor(source.axes, self.images[source.id], self.plan.position(number), self._count)
        operations = self.package.before_rdf.get(source.id, ())
        if not operations:
            return tensor
        custom = self.fit(f"{number}/{source.id}/custom", operations, tensor, {})
        return self._whole(f"{number}_{source.id}_custom", tensor, custom)

    def _whole(self, name: str, tensor: xr.DataArray, before: Pipeline) -> xr.DataArray:
        """A tensor that is processed at once, in memory or in a file."""
        everything = {str(a): slice(0, n) for a, n in tensor.sizes.items()}
        if self._folder is None:
            return before(read_region(tensor, everything))
        path = self._folder / f"{name}.npy"
        dims = [str(a) for a in tensor.dims]
        if not path.is_file():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, before(read_region(tensor, everything)).to_numpy())
            partial.replace(path)
        return open_image(path, axes=",".join(dims)).transpose(*dims)


class TileJob:
    """The tiles of a plan, as an executor walks them (see `executors.Job`).

    Args:
        samples: of the plan.
        engine: the network, of the plan's weights.
        sinks: where the outputs go.
        scratch: what keeps the outputs that are finished later, by the number of the output.
    """

    def __init__(
        self, samples: SampleMaker, engine: Engine, sinks: Sequence[Sink], scratch: Mapping[int, Scratch]
    ) -> None:
        self.plan = samples.plan
        self._samples = samples
        self._engine = engine
        self._sinks = sinks
        self._scratch = scratch
        self._now_and_then = NowAndThen()

    def read(self, unit: int) -> Tensors:
        """The network's inputs for a tile."""
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

    def compute(self, unit: int, data: Tensors) -> list[NDArray[Any]]:
        """The network's outputs for a tile."""
        return self._checked(self._engine(data), self.plan.tile(unit))

    def write(self, unit: int, data: list[NDArray[Any]]) -> Report:
        """Postprocess and write what is kept of a tile, or keep it for later."""
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
                report = _sum(report, self._finished(tile, number, values))
        self._now_and_then.give_back()
        return report

    def _finished(self, tile: Tile, number: int, values: NDArray[Any]) -> Report:
        block = _kept(self.plan, tile, number, values)
        sample = tile.index // self.plan.tiles_per_sample
        whole = block if self.plan.outputs[number].id in self.plan.whole_after else None
        after = self._samples.after(sample, number, whole)
        return write_block(self.plan, tile, number, after(block), self._sinks[number])

    def _checked(self, outputs: list[NDArray[Any]], tile: Tile) -> list[NDArray[Any]]:
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
                f"{self.plan.model}: for a tile the RDF promises an output of shape {promised}, "
                f"but the network gives {shapes}; the package is not sound, tell its authors"
            )
        return outputs


def _stand_in(plan: Plan, number: int) -> xr.DataArray:
    """An array of the whole output's shape that takes no memory; for operations that look at the shape alone."""
    target = plan.outputs[number]
    dims = tuple(a for a in target.axes if a != "batch")
    shape = tuple(int(target.sizes[a] or 1) for a in dims)
    return xr.DataArray(np.broadcast_to(np.float32(0), shape), dims=dims)


def write_block(plan: Plan, tile: Tile, number: int, block: xr.DataArray, sink: Sink) -> Report:
    """Write what a tile keeps of an output, processed, into the output's image."""
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
            f"{plan.model}: the postprocessing of {target.id} gives {dict(zip(target.image_axes, sizes, strict=True))} values "
            f"where the RDF promises {shape}; the package is not sound, tell its authors"
        )
    sink.write(region, cast(ordered.reshape(shape), target.dtype))
    voxels = int(np.prod([s.stop - s.start for a, s in region.items() if a != "channel"]))
    return Report(voxels, values.size - finite)


def _kept(plan: Plan, tile: Tile, number: int, values: NDArray[Any]) -> xr.DataArray:
    """What is kept of a tile's output without batch; positions in the whole as coordinates."""
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
    return np.asarray(values, dtype=target, order="C")


def scratch_shape(plan: Plan, number: int) -> tuple[int, ...]:
    """The shape of an output's scratch: (samples, *output) or, where tiles are blended, (tiles, *tile's output)."""
    target = plan.outputs[number]
    if plan.blend:
        gives = plan.gives(plan.tile(0), number)
        return (len(plan), *(int(n or 0) for a, n in zip(target.axes, gives, strict=True) if a != "batch"))
    return (plan.samples, *(int(target.sizes[a] or 0) for a in target.axes if a != "batch"))


def scratch_outputs(plan: Plan) -> tuple[int, ...]:
    """The numbers of the outputs that can be finished only when all tiles are there."""
    if not plan.is_cut:
        return ()
    return tuple(n for n, o in enumerate(plan.outputs) if plan.blend or o.id in plan.whole_after)
