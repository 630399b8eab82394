"""Deliver the requested outputs from those of the tiles: segment instances, resample back, and move to the final path.

    result.ome.zarr.incomplete/
        model_scale/                 ledger and intermediate files of the run (see `prediction_run`)
        result.ome.zarr              the maps after their tiles are done, with the labels inside
        out.ome.zarr                 the same, if the output is a label image inside an OME-Zarr or is resampled
        image_scale/                 maps and labels, resampled back
        model_scale/grouping_N       intermediate results of sample N in blocks (see `instances.blockwise`)

An OME-Zarr output contains maps and labels. Any other output, such as a TIFF or a label image inside another OME-Zarr,
contains only the labels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.core.atomic import is_hidden, remove_leftovers_in
from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.jobs import Stage
from im2im_zoo.images import create_image, open_image, write_image
from im2im_zoo.images.atomic import commit, discard, sync_everything
from im2im_zoo.images.labels_group import image_of_label, list_label, version_of_image
from im2im_zoo.images.open import is_zarr_path
from im2im_zoo.images.target import Stored
from im2im_zoo.images.write import ImageWriter
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.run import LABELS
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES, AnyGrouping
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.package import Package
from im2im_zoo.runtime.execute.completed import Result
from im2im_zoo.runtime.execute.delivered import RESULTS, TILES, delivered
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.execute.instances import InstanceLog, segment_instances
from im2im_zoo.runtime.execute.outputs import (
    LABEL_IMAGE,
    label_storage,
    output_pixel_size,
    output_scales,
    output_translation,
)
from im2im_zoo.runtime.execute.prediction_run import PredictionRun
from im2im_zoo.runtime.execute.records import Record
from im2im_zoo.runtime.execute.tile_stages import Progress
from im2im_zoo.runtime.execute.work_folder import IMAGE_SCALE, MODEL_SCALE
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.rescale import resample_to
from im2im_zoo.runtime.settings import Settings

_PARTIAL_LABELS = f"{INSTANCES}.ome.zarr"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The label image and its number of objects, if there is one, and warnings about it."""

    labels: Path | None = None
    objects: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """The way from the outputs of the tiles to the requested outputs: here the tiles write these themselves.

    Attributes:
        sources: paths that the tiles write, one per output.
        folder: of the run's ledger.
        replaces: whether the tiles replace existing files at `sources`.
        ids: of the outputs.
    """

    sources: tuple[Path, ...]
    folder: Path
    replaces: bool
    ids: tuple[str, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        """Paths that exist when the prediction is complete."""
        return tuple(Result(p, i) for p, i in zip(self.sources, self.ids, strict=True))

    @property
    def labels(self) -> Path | None:
        """Final path of the labels, if there are any."""
        return None

    @property
    def are_sources_complete(self) -> bool:
        """Whether all tiles are done and only later stages are left."""
        return False

    def appeared(self) -> frozenset[int]:
        """Return the numbers of the outputs that an interrupted run has moved to their paths."""
        return delivered(self.folder, TILES, self.sources)

    @property
    def count(self) -> int:
        """Number of outputs that take their places."""
        return len(self.sources)

    def delivered(self, run: PredictionRun) -> Delivered:
        """Return the result of the interrupted run whose outputs have appeared."""
        return Delivered()

    def check_work(self) -> None:
        """Remove from the work folder what a killed run was just writing.

        Raises:
            ImageError: the work folder contains files of something other than this prediction.
        """
        remove_leftovers_in(self.folder)

    def run(
        self, run: PredictionRun, plan: Plan, original: xr.DataArray, progress: Progress | None
    ) -> Delivered:
        """Run the later stages and move the outputs to their paths.

        Args:
            run: of the tiles, with an open ledger.
            plan: of the run.
            original: the main image, before it was resampled.
            progress: called with `instances` or `resampling`, the finished voxels and their total number.

        Raises:
            PackageError, PlanError, ImageError: a stage fails; the sources are kept, and the same run resumes.
        """
        return Delivered()


@dataclass(frozen=True)
class StagedDelivery(Delivery):
    """The tiles write OME-Zarrs in the work folder, from which later stages create the outputs.

    Attributes:
        paths: of the outputs.
        work: the work folder.
        settings: of the prediction.
        code: the function for instance segmentation, if there is one.
        overwrite: replace existing outputs.
    """

    paths: tuple[Path, ...]
    work: Path
    settings: Settings
    code: Code | None
    overwrite: bool

    @property
    def results(self) -> tuple[Result, ...]:
        """The outputs, and the labels; an output that is a label image is the labels only."""
        images = tuple(Result(p, i) for p, i in zip(self.paths, self.ids, strict=True))
        if self.labels is None:
            return images
        return (*(i for i in images if i.path != self.labels), Result(self.labels, INSTANCES))

    @property
    def are_sources_complete(self) -> bool:
        return all(source.exists() for source in self.sources)

    def appeared(self) -> frozenset[int]:
        return delivered(self.folder, RESULTS, self.paths)

    @property
    def count(self) -> int:
        return len(self.paths)

    def delivered(self, run: PredictionRun) -> Delivered:
        """Return the labels and their recorded number of objects."""
        if self.labels is not None and image_of_label(self.labels) is not None:
            list_label(self.labels)
        objects = sum(run.finished().objects.values())
        return Delivered() if self.code is None else Delivered(self.labels, objects)

    @property
    def _last_image(self) -> Path:
        """The image that the last step moves to the path of the output."""
        return self.work / IMAGE_SCALE / self.paths[0].name if self._keeps_resampled else self.sources[0]

    def check_work(self) -> None:
        for folder in (self.work, self.folder, self.work / IMAGE_SCALE):
            remove_leftovers_in(folder)
        ours = {MODEL_SCALE, IMAGE_SCALE, *(source.name for source in self.sources)}
        others = (
            sorted(p.name for p in self.work.iterdir() if p.name not in ours and not is_hidden(p))
            if self.work.is_dir()
            else []
        )
        if others:
            raise ImageError(
                f"{self.work} already exists and contains other files than those of this prediction ({', '.join(others[:5])}); "
                "resume the command that created it, move it, or remove it with --restart"
            )

    @property
    def labels(self) -> Path | None:
        """Final path of the labels, if there are any."""
        if self.code is None:
            return None
        return self.paths[0] / "labels" / INSTANCES if _holds_labels(self.paths[0]) else self.paths[0]

    def run(
        self, run: PredictionRun, plan: Plan, original: xr.DataArray, progress: Progress | None
    ) -> Delivered:
        """Segment instances, resample back, and move the outputs to their paths."""
        delivered = Delivered()
        run.check_stored()
        if self.code is not None:
            stage = _InstanceStage(run, plan, self.code, self.sources[0], progress)
            objects, warnings = stage.run()
            delivered = Delivered(self.labels, objects, tuple(warnings))
        steps = list(self._steps(run, plan, original))
        finished = run.finished().resampled if self._keeps_resampled else frozenset()
        if self.code is None:
            finished = self.appeared()

        def done(number: int, report: object) -> None:
            if self._keeps_resampled and number < len(steps) - 1:
                run.record(Record("resampling", number))
                run.flush()
            if progress is not None and self.settings.rescale:
                progress("resampling", plan.voxels * (number + 1) // len(steps), plan.voxels)

        with InProcess(ahead=0).start(lambda: _StepJob(steps)) as session:
            Stage("delivery", range(len(steps)), done, finished).run(session)
        return delivered

    @property
    def _keeps_resampled(self) -> bool:
        """Whether resampled images are written in the work folder, so that they can be resumed."""
        return self.settings.rescale and self.code is not None and _holds_labels(self.paths[0])

    def _steps(self, run: PredictionRun, plan: Plan, original: xr.DataArray) -> Iterable[Callable[[], None]]:
        """Yield the steps of resampling and delivery; the last moves the output to its path."""
        if self.code is None:
            for number, path in enumerate(self.paths):
                yield _call(self._resample_back, run, plan, number, self.sources[number], path, original)
            return
        [source], [path] = self.sources, self.paths
        labels = source / "labels" / INSTANCES
        if self._keeps_resampled:
            whole = self._last_image
            yield _call(self._resample_maps_back, run, plan, source, whole, original)
            yield _call(
                self._resample_back, run, plan, LABEL_IMAGE, labels, whole / "labels" / INSTANCES, original
            )
            yield _call(self._commit, run, whole, path)
        elif self.settings.rescale:
            yield _call(self._resample_back, run, plan, LABEL_IMAGE, labels, path, original)
        elif _holds_labels(path):
            yield _call(self._commit, run, source, path)
        else:
            yield lambda: self._write(run, open_image(labels), path, labels=True)

    def _commit(self, run: PredictionRun, whole: Path, path: Path) -> None:
        self._check_stored(run)
        sync_everything()
        run.note_result(0, whole)
        commit(whole, path, folder=True, overwrite=self.overwrite, durable=True)

    def _resample_maps_back(
        self, run: PredictionRun, plan: Plan, source: Path, whole: Path, original: xr.DataArray
    ) -> None:
        whole.parent.mkdir(exist_ok=True)
        discard(whole)
        self._resample_back(run, plan, 0, source, whole, original)

    def _resample_back(
        self, run: PredictionRun, plan: Plan, number: int, source: Path, path: Path, original: xr.DataArray
    ) -> None:
        """Resample an image from the model's pixel size to the grid of the original image, and write it."""
        target = plan.outputs[number]
        labels = target.labels or number == LABEL_IMAGE
        sizes = {
            a: max(1, round(original.sizes[a] * scale))
            for a, scale in output_scales(plan, number).items()
            if a in target.image_axes and a in original.dims
        }
        self._write(run, resample_to(open_image(source), sizes, labels=labels), path, labels=labels)

    def _check_stored(self, run: PredictionRun) -> None:
        """Check that nothing of the maps and labels was lost that the outputs are made of."""
        run.check_stored(None if self.code is None else self.sources[0] / "labels" / INSTANCES)

    def _write(self, run: PredictionRun, image: xr.DataArray, path: Path, *, labels: bool) -> None:
        version = self.settings.format.ome_zarr_version
        options = {} if version is None else {"ome_zarr_version": version}

        def check(finished: Path) -> None:
            self._check_stored(run)
            if path in self.paths:
                sync_everything()
                run.note_result(self.paths.index(path), finished)

        # In the work folder it is what a killed run wrote just before it could record it.
        overwrite = self.overwrite or path not in self.paths
        write_image(image, path, overwrite=overwrite, labels=labels, check=check, **options)


def choose_delivery(
    package: Package,
    layout: Layout,
    paths: Sequence[Path],
    work: Path,
    settings: Settings,
    grouping: AnyGrouping | None,
    *,
    overwrite: bool,
    allow_code: bool,
) -> Delivery:
    """Choose the delivery of the outputs: directly, or through stages for instances and resampling.

    Args:
        package: the model.
        layout: of the prediction.
        paths: of the outputs.
        work: the work folder.
        settings: of the prediction.
        grouping: instance segmentation of the prediction, if any.
        overwrite: replace existing outputs.
        allow_code: whether Python code of the package may run.

    Raises:
        PackageError: the function for instance segmentation cannot run or is not allowed to.
        ImageError: labels cannot be written to the path.
    """
    ids = tuple(target.id for target in layout.outputs)
    if grouping is None and not settings.rescale:
        return Delivery(tuple(paths), work, overwrite, ids)
    code = None if grouping is None else Code(grouping, package.root, allow_code)
    sources = [work / f"{target.id}.ome.zarr" for target in layout.outputs]
    if code is not None:
        code.load()
        _check_labels_path(paths[0], settings)
        if _holds_labels(paths[0]) and not settings.rescale:
            sources = [work / paths[0].name]
    folder = work / MODEL_SCALE
    return StagedDelivery(tuple(sources), folder, True, ids, tuple(paths), work, settings, code, overwrite)


def _call(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


@dataclass(frozen=True, slots=True)
class _StepJob:
    """The job of running delivery steps; a unit is the number of a step."""

    steps: Sequence[Callable[[], None]]

    def read(self, unit: int) -> None:
        return None

    def compute(self, unit: int, data: None) -> None:
        self.steps[unit]()

    def write(self, unit: int, data: None) -> None:
        return None


def _holds_labels(path: Path) -> bool:
    """Return whether a path is that of an OME-Zarr image, and not of a label image inside one."""
    return is_zarr_path(path) and image_of_label(path) is None


def _check_labels_path(path: Path, settings: Settings) -> None:
    """Raise `ImageError` for a path that labels cannot be written to, before anything is computed."""
    image = image_of_label(path)
    if image is not None:
        version, asked = version_of_image(image), settings.format.ome_zarr_version
        if asked not in (None, version):
            raise ImageError(f"{path}: {image.name} is OME-Zarr {version}; leave out --ome-zarr {asked}")


@dataclass(frozen=True, slots=True)
class _InstanceStage:
    """The stage that writes the labels of an OME-Zarr of maps into it."""

    prediction: PredictionRun
    plan: Plan
    code: Code
    source: Path
    progress: Progress | None

    def run(self) -> tuple[int, list[str]]:
        """Return the number of objects, and warnings about the labels."""
        run, plan, path = self.prediction, self.plan, self.source / "labels" / INSTANCES
        before = run.finished()
        counts = dict(before.objects)
        if path.exists():
            list_label(path)
            return sum(counts.values()), []
        executor = run.executor
        blocks = {block for block in before.blocks if block[0] not in counts}
        self._report(len(counts))
        with self._writer(path, before.pyramids.get(LABEL_IMAGE, [])) as writer:
            for sample in counts:
                writer.mark({a: slice(p, p + 1) for a, p in plan.position(sample).items()})
            for sample, step, block in blocks:
                if step == LABELS:
                    writer.mark(self._region(writer, sample, block))

            def done(sample: int, objects: int) -> None:
                counts[sample] = objects
                # In blocks, the files are those of the blocks.
                region = {a: slice(p, p + 1) for a, p in plan.position(sample).items()}
                stored = writer.stored(region) if self._grouping.block is None else Stored()
                run.record(
                    Record("instances", sample, objects=objects, files=stored.files, bytes=stored.bytes)
                )
                if self._grouping.block is not None:
                    run.flush()
                self._report(len(counts))

            def block_done(sample: int, step: str, block: int, part: float) -> None:
                region, stored = self._region(writer, sample, block), Stored()
                if step == LABELS:
                    stored = writer.stored(region)
                    if not executor.shares_memory:
                        writer.mark(region)
                files, size = stored
                run.record(Record("blocks", block, sample=sample, step=step, files=files, bytes=size))
                self._report(len(counts) + part)

            warnings = segment_instances(
                plan,
                self.code,
                open_image(self.source),
                writer if executor.shares_memory else writer.part(),
                run.folder,
                executor=executor,
                log=InstanceLog(tuple(counts), done, blocks, block_done),
            )
            run.flush()
            run.check_stored(run.folder / _PARTIAL_LABELS)
        return sum(counts.values()), warnings

    def _report(self, samples: float) -> None:
        if self.progress is not None:
            each = self.plan.voxels // self.plan.samples
            self.progress("instances", int(each * samples), self.plan.voxels)

    @property
    def _grouping(self) -> GroupPlan:
        if self.plan.grouping is None:
            raise ValueError("the plan has no instance segmentation")
        return self.plan.grouping

    def _region(self, writer: ImageWriter, sample: int, block: int) -> dict[str, slice]:
        """Return the region of the label image that a block of a sample covers."""
        ours, position = self._grouping, self.plan.position(sample)
        target = LabelImage(writer, ours.axes, ours.shape, ours.dtype, ours.space, position, self.plan.model)
        return target.region(BlockGrid(ours.sizes, ours.block or ours.sizes).region(block))

    def _writer(self, path: Path, reduced: Sequence[tuple[int, int]]) -> ImageWriter:
        run, plan, ours = self.prediction, self.plan, self._grouping
        image = run.main_image(plan)
        chunks, shards = label_storage(plan, run.settings.format)
        grouping = {"grouping": ours.grouping.to_json(), "output": INSTANCES}
        attributes: Mapping[str, Any] = {**run.provenance(plan), **grouping}

        def reduced_block(level: int, block: int) -> None:
            run.record_pyramid(LABEL_IMAGE, level, block, writer.stored_reduced(level, block))

        writer = create_image(
            path,
            axes=ours.axes,
            shape=ours.shape,
            dtype=ours.dtype,
            pixel_size_um=output_pixel_size(plan, LABEL_IMAGE, image),
            translation_um=output_translation(plan, LABEL_IMAGE, image),
            time_step_s=image.attrs.get("time_step_s") if "time" in ours.axes else None,
            chunks=chunks,
            shards=shards,
            attributes=attributes,
            labels=True,
            overwrite=True,
            work=run.folder / _PARTIAL_LABELS,
            reduced=reduced,
            on_reduced=reduced_block,
        )
        return writer
