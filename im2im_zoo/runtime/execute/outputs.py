"""The output images of a prediction: paths, chunks, metadata and writers."""

import functools
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.atomic import atomic_file, move_into_place
from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import create_image, format_of, image_formats, pixel_size_um, sources_of
from im2im_zoo.images.labels_group import image_of_label
from im2im_zoo.images.registry import suffix_of
from im2im_zoo.images.sink import Sink
from im2im_zoo.images.target import Stored
from im2im_zoo.images.write import ImageWriter
from im2im_zoo.runtime.execute.work_folder import LONGEST_NAME
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.settings import Format

# Sides of chunks and shards along the space axes of an image, in 2D and 3D; and the number of chunks from which on shards
# are used.
_CHUNK = {2: 1024, 3: 128}
_SHARDED_CHUNK = {2: 512, 3: 64}
_SHARD = {2: 4096, 3: 512}
_MANY_CHUNKS = 10_000
# Number of the label image, in place of an output's.
LABEL_IMAGE = -1


def output_paths(layout: Layout, output: Path, named: Mapping[str, Path] | None = None) -> tuple[Path, ...]:
    """Return the path of each output: the first at `output`, others next to it with their ids; tables as `.npy`.

    Args:
        layout: of the prediction.
        output: requested path of the first output.
        named: requested paths of some outputs, by id.

    Raises:
        PlanError: an unknown id, an image suffix for a table, or the same path twice.
        ImageError: a name that leaves no room for that of partial results.
    """
    known = [o.id for o in layout.outputs]
    unknown = sorted(set(named or {}) - set(known))
    if unknown:
        raise PlanError(f"the model has no output {', '.join(unknown)}; choose from {', '.join(known)}")
    suffix = suffix_of(output) or output.suffix
    stem = output.name[: len(output.name) - len(suffix)]
    paths = []
    for number, target in enumerate(layout.outputs):
        ending = output.name[len(stem) :] if target.is_image else ".npy"
        default = output if number == 0 else output.with_name(f"{stem}_{target.id}{ending}")
        path = (named or {}).get(target.id, default)
        if not target.is_image and path.suffix.lower() != ".npy":
            axes = ", ".join(target.image_axes) or "none"
            raise PlanError(
                f"{path.name}: the output {target.id} is not an image (its axes: {axes}); use a path that ends in .npy"
            )
        _check_name(path)
        paths.append(path)
    doubled = sorted({str(p) for p in paths if paths.count(p) > 1})
    if doubled:
        raise PlanError(f"two outputs would be written to {doubled[0]}; use another path for one of them")
    return tuple(paths)


def _check_name(path: Path) -> None:
    size = len(os.fsencode(path.name))
    if size > LONGEST_NAME:
        raise ImageError(
            f"{path}: the name of this output has {size} bytes; give one of at most {LONGEST_NAME}, because partial results are kept "
            "beside it under its name and .incomplete"
        )


def check_writable(paths: Iterable[Path]) -> None:
    """Check that the suffixes of outputs are of formats that are written tile by tile, and that their names are not too long.

    Raises:
        ImageError: a suffix that cannot be written, or a name that leaves no room for that of partial results.
    """
    for path in paths:
        _check_name(path)
        found = format_of(path, "write")
        if image_of_label(path) is None and (found is None or not found.by_region):
            suffixes = [s for f in image_formats() if f.by_region for s in f.writes]
            kind = f"a {found.name} cannot be" if found is not None else "cannot be"
            picture = (
                f"; for a picture write {path.stem}.tif and run: im2im-zoo view {path.stem}.tif -o {path.name}"
                if path.suffix.lower() == ".png"
                else ""
            )
            raise ImageError(
                f"{path}: {kind} written tile by tile; end the name in one of {', '.join(suffixes)}{picture}"
            )


def check_free(
    paths: Sequence[Path],
    images: Iterable[xr.DataArray],
    *,
    overwrite: bool,
    describe: Callable[[Path], str] = lambda _: "already exists",
) -> None:
    """Check that outputs do not replace existing files without `overwrite`, and never the inputs.

    Args:
        paths: of the outputs.
        images: the inputs.
        overwrite: whether outputs may be replaced.
        describe: returns what is at a path, to follow the path in a message.

    Raises:
        ImageError: an output exists, or contains an input.
    """
    sources = [Path(source) for image in images for source in sources_of(image)]
    for path in paths:
        if path.exists() and not overwrite:
            raise ImageError(
                f"{path} {describe(path)}; choose another output, or replace it with --overwrite"
            )
        lost = [
            s for s in sources if path.exists() and s.exists() and s.resolve().is_relative_to(path.resolve())
        ]
        if lost:
            raise ImageError(f"{path} contains the input, which would be lost; choose another output")


class Outputs:
    """The writers of all outputs; leaving the `with` block moves the outputs to their paths.

    Args:
        plan: of the prediction.
        images: by input, for pixel sizes.
        paths: one per output.
        work: folder of the partial outputs; those of an earlier run are resumed.
        overwrite: replace existing outputs.
        kind: the file format.
        attributes: provenance.
        reduced: finished blocks of the pyramids, (level, block) by output.
        on_reduced: called with output, level and block of each new block, and its files.
        appeared: numbers of the outputs that an interrupted run has already moved to their paths.
        on_finished: called with the number of a finished image and where it is, before it is moved to its path.
    """

    def __init__(
        self,
        plan: Plan,
        images: Mapping[str, xr.DataArray],
        paths: Sequence[Path],
        work: Path,
        *,
        overwrite: bool,
        kind: Format,
        attributes: Mapping[str, Any],
        reduced: Mapping[int, Iterable[tuple[int, int]]],
        on_reduced: Callable[[int, int, int, Stored], None],
        appeared: Collection[int] = (),
        on_finished: Callable[[int, Path], None] = lambda number, partial: None,
    ) -> None:
        self._plan = plan
        self._on_reduced = on_reduced
        self._stack = ExitStack()
        self.sinks: list[Sink] = []
        for number, (target, path) in enumerate(zip(plan.outputs, paths, strict=True)):
            if number in appeared:
                self.sinks.append(_Appeared(path))
                continue
            if not target.image_shape:
                self.sinks.append(Table(path, work / path.name, overwrite))
                continue
            self.sinks.append(
                _writer(
                    plan,
                    number,
                    images,
                    path,
                    work / path.name,
                    overwrite=overwrite,
                    kind=kind,
                    attributes=attributes,
                    reduced=reduced.get(number, ()),
                    on_reduced=functools.partial(self._report_reduced, number),
                    on_finished=functools.partial(on_finished, number),
                )
            )

    def parts(self) -> list[Sink]:
        """Return the sinks for use in other processes."""
        return [s.part() if isinstance(s, ImageWriter) else s for s in self.sinks]

    def mark(self, unit: int) -> None:
        """Mark a tile as written by another process or an earlier run."""
        tile = self._plan.tile(unit)
        for number, sink in enumerate(self.sinks):
            if isinstance(sink, ImageWriter):
                sink.mark(self._plan.writes(tile, number))

    def stored(self, unit: int, numbers: Iterable[int]) -> Stored:
        """Return the files that hold the voxels of a tile in some outputs."""
        tile, total = self._plan.tile(unit), Stored()
        for number in numbers:
            sink = self.sinks[number]
            if isinstance(sink, ImageWriter):
                total = total.plus(sink.stored(self._plan.writes(tile, number)))
        return total

    def _report_reduced(self, number: int, level: int, block: int) -> None:
        sink = self.sinks[number]
        stored = sink.stored_reduced(level, block) if isinstance(sink, ImageWriter) else Stored()
        self._on_reduced(number, level, block, stored)

    def __enter__(self) -> Self:
        try:
            for sink in self.sinks:
                if isinstance(sink, ImageWriter | Table):
                    self._stack.enter_context(sink)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class _Appeared:
    """An output that is already at its path; nothing is left to write."""

    path: Path

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        raise ImageError(
            f"{self.path} is complete, but a tile of it is not recorded; start over with --restart"
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The writer of an output whose size depends on the data: one `.npy` file per position on the looped axes."""

    path: Path
    work: Path
    overwrite: bool

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write the output of one position."""
        place = "".join(f"_{axis}{span.start}" for axis, span in region.items())
        file = self.work / f"{self.path.stem}{place}{self.path.suffix}"
        with atomic_file(file) as opened:
            np.save(opened, block, allow_pickle=False)

    def __enter__(self) -> Self:
        self.work.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        for file in sorted(self.work.glob("*.npy")):
            target = self.path.with_name(file.name)
            if target.exists() and not self.overwrite:
                raise ImageError(
                    f"{target} already exists; choose another output, or replace it with --overwrite"
                )
            move_into_place(file, target)
        shutil.rmtree(self.work)


def _writer(
    plan: Plan,
    number: int,
    images: Mapping[str, xr.DataArray],
    path: Path,
    work: Path,
    *,
    overwrite: bool,
    kind: Format,
    attributes: Mapping[str, Any],
    reduced: Iterable[tuple[int, int]],
    on_reduced: Callable[[int, int], None],
    on_finished: Callable[[Path], None],
) -> ImageWriter:
    target = plan.outputs[number]
    image = main_image(plan, images)
    chunks, shards = storage(plan, number, kind)
    version: dict[str, Any] = (
        {} if kind.ome_zarr_version is None else {"ome_zarr_version": kind.ome_zarr_version}
    )
    return create_image(
        path,
        axes=target.image_axes,
        shape=target.image_shape or (),
        dtype=target.dtype,
        pixel_size_um=output_pixel_size(plan, number, image),
        translation_um=output_translation(plan, number, image),
        channel_names=target.channel_names,
        time_step_s=image.attrs.get("time_step_s") if "time" in target.image_axes else None,
        chunks=chunks,
        shards=shards,
        attributes={**attributes, "output": target.id},
        labels=target.labels,
        overwrite=overwrite,
        work=work,
        reduced=reduced,
        on_reduced=on_reduced,
        check=on_finished,
        **version,
    )


def main_image(plan: Plan, images: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return the image that defines the pixel sizes of the outputs: the first given one."""
    return images[next(i.id for i in plan.inputs if i.given)]


def output_pixel_size(plan: Plan, number: int, image: xr.DataArray) -> dict[str, float]:
    """Return the pixel size of an output in micrometres, by axis."""
    scales = output_scales(plan, number)
    axes = plan.outputs[number].image_axes
    return {
        a: size / scales.get(a, 1.0) for a, size in pixel_size_um(image).items() if a in axes and a in scales
    }


def output_translation(plan: Plan, number: int, image: xr.DataArray) -> dict[str, float]:
    """Return the position of the centre of an output's first voxel in micrometres, by axis where it is known.

    The first voxel of an output with half as many voxels is shifted by half a voxel of the input.
    """
    scales, sizes = output_scales(plan, number), pixel_size_um(image)
    known = image.attrs.get("translation_um") or {}
    shifts = {a: sizes[a] * (1 / scales[a] - 1) / 2 for a in scales if a in sizes}
    moved = {a: float(known.get(a, 0.0)) + shift for a, shift in shifts.items()}
    return {a: moved[a] for a in moved if a in known or shifts[a]}


def output_scales(plan: Plan, number: int) -> dict[str, float]:
    """Return the voxels of an output (or of `LABEL_IMAGE`) per voxel of the main input, by common axis."""
    reference = next(i for i, source in enumerate(plan.inputs) if source.given)
    scales = {m.name: 1.0 for m in plan.loops}
    for name, (inputs, outputs) in plan.ports.items():
        source, target = inputs[reference], outputs[number]
        if source is not None and target is not None:
            finer = (
                plan.grouping.grouping.scale.get(name, 1) if number == LABEL_IMAGE and plan.grouping else 1
            )
            scales[name] = float(target.scale / source.scale) * finer
    return scales


def storage(plan: Plan, number: int, kind: Format) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the chunk shape of an output, and the shard shape or None, such that no two tiles share a chunk or shard."""
    target = plan.outputs[number]
    space = 3 if "z" in target.image_axes else 2
    chunks = _sides(plan, number, _CHUNK[space])
    count = math.prod(-(-n // c) for n, c in zip(target.image_shape or (), chunks, strict=True))
    may = kind.ome_zarr_version in (None, "0.5")
    if not may or kind.shards is False or (kind.shards is None and count < _MANY_CHUNKS):
        return chunks, None
    shards = _sides(plan, number, _SHARD[space])
    small = tuple(_divisor(s, _SHARDED_CHUNK[space]) for s in shards)
    return small, shards


def label_storage(plan: Plan, kind: Format) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the chunk and shard shapes of the label image, such that no two blocks share a chunk or shard."""
    ours = plan.grouping
    if ours is None:
        raise ValueError("the plan has no instance segmentation")
    if ours.block is None:
        axes = plan.outputs[0].image_axes
        found = [None if s is None else dict(zip(axes, s, strict=True)) for s in storage(plan, 0, kind)]
        chunks, shards = (None if s is None else tuple(s[a] for a in ours.axes) for s in found)
        return chunks or (), shards
    blocks = dict(zip(ours.space, ours.block, strict=True))
    chunks = tuple(min(ours.chunk, blocks[a]) if a in blocks else 1 for a in ours.axes)
    count = math.prod(-(-n // c) for n, c in zip(ours.shape, chunks, strict=True))
    may = kind.ome_zarr_version in (None, "0.5")
    if not may or kind.shards is False or (kind.shards is None and count < _MANY_CHUNKS):
        return chunks, None
    return chunks, tuple(-(-blocks.get(a, 1) // c) * c for a, c in zip(ours.axes, chunks, strict=True))


def _sides(plan: Plan, number: int, usual: int) -> tuple[int, ...]:
    target, limits = plan.outputs[number], plan.chunk_limits(number)
    sides = []
    for axis, size in zip(target.image_axes, target.image_shape or (), strict=True):
        if axis in ("time", "channel", "index"):
            sides.append(1)
        elif axis in limits:
            sides.append(_divisor(limits[axis], usual))
        else:
            sides.append(min(size, usual))
    return tuple(sides)


def scratch_chunks(plan: Plan, number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the chunk shape of a scratch array (see `tile_job.scratch_shape`), with one sample or tile per chunk."""
    axes = [a for a in plan.outputs[number].axes if a != "batch"]
    usual = 256 if len(shape) < 5 else 64
    limits = {} if plan.blend else plan.chunk_limits(number)
    sides = [
        _divisor(limits[a], usual) if a in limits else min(n, usual)
        for a, n in zip(axes, shape[1:], strict=True)
    ]
    return (1, *sides)


def _divisor(cut: int, most: int) -> int:
    """Return the largest divisor of `cut` up to `most`, or `cut` itself if that divisor is tiny."""
    best = max(d for d in range(1, min(cut, most) + 1) if cut % d == 0)
    return best if best >= min(cut, most) // 8 else cut
