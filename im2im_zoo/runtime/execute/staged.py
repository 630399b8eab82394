"""Outputs that are not yet what was asked for when their tiles are done: they are grouped, resampled back, and put into place.

    result.ome.zarr.incomplete/
        model_scale/                 the ledger, and what else the run of the tiles needs (see `resume`)
        result.ome.zarr              the maps when their tiles are done, and within it the labels when these are
        out.ome.zarr                 the same, where the output is no image of its own, or is resampled
        image_scale/                 both, resampled back
        model_scale/grouping_N       of a position N that is grouped in blocks, what was found out so far (see `blockwise`)

Labels are written one position of the loops after the other, each recorded as `group N O` (position N is done, it has O
objects), and its blocks as `block N S B` (step S of block B is done); so what is done is not done again. The maps stay
where labels are a part of them: in an OME-Zarr. Of any other output, a TIFF or the label image of another OME-Zarr, the
labels are all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image, write_image
from im2im_zoo.images.atomic import commit, discard, sync_everything
from im2im_zoo.images.labels_group import image_of_label, version_of_image
from im2im_zoo.images.open import is_zarr_path
from im2im_zoo.images.write import ImageWriter
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.run import LABELS
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.package import Package
from im2im_zoo.runtime.execute.grouping import Records, group_samples
from im2im_zoo.runtime.execute.outputs import (
    OF_LABELS,
    label_storage,
    output_pixel_size,
    output_scales,
    output_translation,
)
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.rescale import resampled_to
from im2im_zoo.runtime.settings import Settings

if TYPE_CHECKING:
    from im2im_zoo.runtime.execute.resume import Run
    from im2im_zoo.runtime.execute.run import Progress

FOLDER, _IMAGE_SCALE = "model_scale", "image_scale"
# What labels may be written to region by region.
_ENDINGS = (".zarr", ".tif", ".tiff", ".npy")


@dataclass(frozen=True, slots=True)
class Made:
    """How many objects there are, if any were looked for, and what a person should know of them."""

    objects: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Staged:
    """Where the outputs of the tiles are, and where what is made of them goes.

    Attributes:
        sources: OME-Zarrs, one an output, which the tiles make.
        paths: of what is made of them.
        settings: of the prediction.
        code: that makes labels of the only output, if any does.
        overwrite: replace what is at the paths.
    """

    sources: tuple[Path, ...]
    paths: tuple[Path, ...]
    settings: Settings
    code: Code | None
    overwrite: bool

    @classmethod
    def of(
        cls,
        package: Package,
        layout: Layout,
        paths: Sequence[Path],
        work: Path,
        settings: Settings,
        *,
        overwrite: bool,
        allow_code: bool,
    ) -> "Staged | None":
        """Where outputs are made first, or None if the tiles make what was asked for.

        Raises:
            PackageError: a grouping that cannot be run, or may not be.
            ImageError: a path that labels cannot be written to.
        """
        grouping = package.grouping if settings.group else None
        if grouping is None and not settings.rescale:
            return None
        code = None if grouping is None else Code(grouping, package.root, allow_code)
        sources = [work / f"{target.id}.ome.zarr" for target in layout.outputs]
        if code is not None:
            code.load()
            _check_labels_path(paths[0], settings)
            if _holds_labels(paths[0]) and not settings.rescale:
                sources = [work / paths[0].name]
        return cls(tuple(sources), tuple(paths), settings, code, overwrite)

    @property
    def are_made(self) -> bool:
        """Whether the tiles of all outputs are done."""
        return all(source.exists() for source in self.sources)

    def check_work(self, work: Path) -> None:
        """Refuse a folder in which something else is, as the unfinished prediction of the outputs alone.

        Raises:
            ImageError: what is in the way.
        """
        ours = {FOLDER, _IMAGE_SCALE, *(source.name for source in self.sources)}
        others = sorted(p.name for p in work.iterdir() if p.name not in ours) if work.is_dir() else []
        if others:
            raise ImageError(
                f"{work} is in the way: it holds something else than this prediction ({', '.join(others[:5])}); go on with what "
                "made it, move it away, or remove it with --restart"
            )

    def discard(self) -> None:
        """Remove what an earlier run has made, which is not gone on with."""
        for source in self.sources:
            discard(source)

    @property
    def labels(self) -> Path | None:
        """Where the labels are in the end, if there are any."""
        if self.code is None:
            return None
        return self.paths[0] / "labels" / INSTANCES if _holds_labels(self.paths[0]) else self.paths[0]

    def deliver(
        self,
        run: "Run",
        plan: Plan,
        original: xr.DataArray,
        progress: "Progress | None",
        *,
        workers: int = 1,
        threads: int | None = None,
    ) -> Made | None:
        """Make of the sources what was asked for, and let it appear.

        Args:
            run: of the tiles, whose ledger is open.
            original: the main image, before it was resampled.
            progress: called with `grouping`, the voxels whose labels are done, and all of them.
            workers: processes that group blocks; `threads` is of each.

        Returns:
            What was made of the maps, if they are grouped.

        Raises:
            PackageError, PlanError, ImageError: what cannot be done; the sources are kept, and the same run goes on with them.
        """
        if self.code is None:
            for number, path in enumerate(self.paths):
                self._back(plan, number, self.sources[number], path, original)
            return None
        [source], [path] = self.sources, self.paths
        labels = source / "labels" / INSTANCES
        made = _group(run, plan, self.code, source, progress, workers, threads)
        if self.settings.rescale and _holds_labels(path):
            (source.parent / _IMAGE_SCALE).mkdir(exist_ok=True)
            whole = source.parent / _IMAGE_SCALE / path.name
            discard(whole)
            self._back(plan, 0, source, whole, original)
            self._back(plan, 0, labels, whole / "labels" / INSTANCES, original)
            self._appear(whole, path)
        elif self.settings.rescale:
            self._back(plan, 0, labels, path, original)
        elif _holds_labels(path):
            self._appear(source, path)
        else:
            self._write(open_image(labels), path, labels=True)
        return made

    def _appear(self, whole: Path, path: Path) -> None:
        sync_everything()
        commit(whole, path, folder=True, overwrite=self.overwrite, durable=True)

    def _back(self, plan: Plan, number: int, source: Path, path: Path, original: xr.DataArray) -> None:
        """Write an image that was made at the model's pixel size on the grid of the image that was given."""
        target = plan.outputs[number]
        labels = target.labels or source.parent.name == "labels"
        sizes = {
            a: max(1, round(original.sizes[a] * scale))
            for a, scale in output_scales(
                plan, OF_LABELS if source.parent.name == "labels" else number
            ).items()
            if a in target.image_axes and a in original.dims
        }
        self._write(resampled_to(open_image(source), sizes, labels=labels), path, labels=labels)

    def _write(self, image: xr.DataArray, path: Path, *, labels: bool) -> None:
        version = self.settings.format.ome_zarr_version
        options = {} if version is None else {"ome_zarr_version": version}
        write_image(image, path, overwrite=self.overwrite, labels=labels, **options)


def _holds_labels(path: Path) -> bool:
    """Whether a path is of an OME-Zarr image, and not of a label image within one."""
    return is_zarr_path(path) and image_of_label(path) is None


def _check_labels_path(path: Path, settings: Settings) -> None:
    """Refuse, before anything is computed, a path that labels cannot be written to."""
    image = image_of_label(path)
    if image is not None:
        version, asked = version_of_image(image), settings.format.ome_zarr_version
        if asked not in (None, version):
            raise ImageError(f"{path}: {image.name} is OME-Zarr {version}; leave out --ome-zarr {asked}")
    elif not path.name.lower().endswith(_ENDINGS):
        raise ImageError(f"{path}: labels cannot be written to it; use one of {', '.join(_ENDINGS)}")


def _group(
    run: "Run",
    plan: Plan,
    code: Code,
    source: Path,
    progress: "Progress | None",
    workers: int,
    threads: int | None,
) -> Made:
    """Write the labels of an OME-Zarr of maps into it."""
    path, each = source / "labels" / INSTANCES, plan.voxels // plan.samples
    counts, reduced = run.grouped()
    if path.exists():
        return Made(sum(counts.values()))

    def tell(part: float = 0.0) -> None:
        if progress is not None:
            progress("grouping", int(each * (len(counts) + part)), plan.voxels)

    def done(sample: int, objects: int) -> None:
        counts[sample] = objects
        run.record(f"group {sample} {objects}")
        if plan.grouping is not None and plan.grouping.block is not None:
            run.flush()
        tell()

    tell()
    maps = open_image(source)
    with _writer(run, plan, path, maps, reduced) as writer:
        for sample in counts:
            writer.mark({a: slice(p, p + 1) for a, p in plan.position(sample).items()})
        blocks = {b for b in run.grouped_blocks() if b[0] not in counts}
        for sample, name, block in blocks:
            if name == LABELS:
                writer.mark(_region(plan, writer, sample, block))

        def step(sample: int, name: str, block: int, part: float) -> None:
            if name == LABELS and workers > 1:
                writer.mark(_region(plan, writer, sample, block))
            run.record(f"block {sample} {name} {block}")
            tell(part)

        sink = writer.part() if workers > 1 else writer
        records = Records(tuple(counts), done, blocks, step)
        warnings = group_samples(
            plan, code, maps, sink, run.folder, records=records, workers=workers, threads=threads
        )
        run.flush()
    return Made(sum(counts.values()), tuple(warnings))


def _region(plan: Plan, writer: ImageWriter, sample: int, block: int) -> dict[str, slice]:
    """What a block of a sample is of the label image."""
    ours = plan.grouping
    if ours is None or ours.block is None:
        raise ValueError("a plan without blocks")
    position = plan.position(sample)
    target = LabelImage(writer, ours.axes, ours.shape, ours.dtype, ours.space, position, plan.model)
    return target.region(BlockGrid(ours.sizes, ours.block).region(block))


def _writer(
    run: "Run", plan: Plan, path: Path, maps: xr.DataArray, reduced: Sequence[tuple[int, int]]
) -> ImageWriter:
    ours, image = plan.grouping, run.main_image(plan)
    if ours is None:
        raise ValueError("a plan without grouping")
    chunks, shards = label_storage(plan, run.settings.format)
    return create_image(
        path,
        axes=ours.axes,
        shape=ours.shape,
        dtype=ours.dtype,
        pixel_size_um=output_pixel_size(plan, OF_LABELS, image),
        translation_um=output_translation(plan, OF_LABELS, image),
        time_step_s=image.attrs.get("time_step_s") if "time" in ours.axes else None,
        chunks=chunks,
        shards=shards,
        attributes={**run.provenance(plan), "grouping": ours.grouping.to_json()},
        labels=True,
        overwrite=True,
        work=run.folder / f"{INSTANCES}.ome.zarr",
        reduced=reduced,
        on_reduced=lambda level, block: run.record(f"level {len(plan.outputs)} {level} {block}"),
    )
