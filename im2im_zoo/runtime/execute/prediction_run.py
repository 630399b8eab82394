"""A resumable prediction: its folder, its ledger, and its tile stages.

result.ome.zarr.incomplete/      marks the output as incomplete; removed when the output is complete
    ledger.json, done.jsonl      the decisions and the finished units (see `ledger`)
    result.ome.zarr              the partial output
    scratch_0.zarr               outputs of the network whose postprocessing needs all tiles
    0_raw.npy                    inputs that are preprocessed as a whole
    statistics_....npz           intermediate statistics of a large image
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.atomic import is_hidden, remove_folder
from im2im_zoo.core.errors import ImageError, PackageError, PlanError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.jobs import Executor
from im2im_zoo.images import sources_of
from im2im_zoo.images.sink import Sink
from im2im_zoo.images.target import Stored
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute.checkpoint import StatisticsLimits, has_checkpoint
from im2im_zoo.runtime.execute.completed import identity_hashes
from im2im_zoo.runtime.execute.delivered import RESULTS, TILES, delivered, note_delivery
from im2im_zoo.runtime.execute.fingerprint import image_fingerprint, package_fingerprint
from im2im_zoo.runtime.execute.input_watch import InputWatch
from im2im_zoo.runtime.execute.ledger import SPOILED, Ledger, list_differences
from im2im_zoo.runtime.execute.outputs import Outputs, main_image
from im2im_zoo.runtime.execute.records import Finished, Record
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.stored_files import ScratchFolder, check_files
from im2im_zoo.runtime.execute.tile_job import Report, Scratch, TileJob
from im2im_zoo.runtime.execute.tile_stages import (
    Counts,
    Progress,
    TileStageName,
    TileStages,
    new_scratch,
)
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.prepare import Prepared, decisions_of
from im2im_zoo.runtime.settings import Settings


@dataclass(slots=True)
class PredictionRun:
    """One prediction with its folder: `open` it, then `run_tiles`.

    Attributes:
        package: the model.
        images: by input.
        paths: of the outputs of the tiles.
        settings: choices of the user that change the result.
        folder: of the ledger and the partial outputs.
        executor: runs tiles and blocks.
        threads: of the network in each process.
        overwrite: replace existing outputs.
        allow_code: whether Python code of the package may run.
        ledger: open once a run has started or resumed.
        limits: of the pass over an image for its statistics.
    """

    package: Package
    images: Mapping[str, xr.DataArray]
    paths: Sequence[Path]
    settings: Settings
    folder: Path
    executor: Executor
    threads: int | None = None
    overwrite: bool = False
    allow_code: bool = False
    ledger: Ledger | None = None
    _identity: dict[str, Any] | None = None
    _watch: InputWatch | None = None
    limits: StatisticsLimits = field(default_factory=StatisticsLimits)

    def identity(self) -> dict[str, Any]:
        """Return the inputs that must match to resume a run, as they were at the first call."""
        if self._identity is None:
            self._watch = InputWatch.of(self.images.values())
            self._identity = self._measure_identity()
        return self._identity

    def check_inputs(self, *, thoroughly: bool = False) -> None:
        """Check that the files of the images are as they were at the start.

        Args:
            thoroughly: compare the fingerprints as well, with the chunks of zarrs and some voxels.

        Raises:
            ImageError: an image was changed; the finished tiles are not used again.
        """
        changed = None if self._watch is None else self._watch.find_changed()
        reason = (
            "" if changed is None else f"{changed} was changed, replaced or removed while it was predicted"
        )
        if not reason and thoroughly:
            before = self.identity()["images"]
            in_files = {n: i for n, i in self.images.items() if {"path", "files"} & set(before[n])}
            now = {n: image_fingerprint(i) for n, i in in_files.items()}
            if lines := list_differences({n: before[n] for n in now}, now):
                names = ", ".join(s for i in in_files.values() for s in sources_of(i))
                reason = "\n".join([f"{names} was changed while it was predicted:", *lines])
        if reason:
            with self._marked_if_lost():
                raise ImageError(
                    f"{reason}\nThe result would mix two images, so there is none; start over with --restart when the image is "
                    "complete"
                )

    @contextmanager
    def _marked_if_lost(self) -> Iterator[None]:
        """Note in the ledger that the finished units must not be used, if a check in the `with` block fails."""
        try:
            yield
        except ImageError as error:
            self._open_ledger().note(SPOILED, str(error))
            raise

    def _measure_identity(self) -> dict[str, Any]:
        return {
            "package": package_fingerprint(self.package),
            "images": {name: image_fingerprint(image) for name, image in self.images.items()},
            "settings": self.settings.to_json(),
            "outputs": [p.name for p in self.paths],
            "im2im_zoo": version("im2im_zoo"),
        }

    @contextmanager
    def open(self, *, restart: bool = False) -> Iterator[Ledger | None]:
        """Yield the ledger of an earlier run that resumes, or None. After an error, remove a folder without finished units.

        Args:
            restart: ignore an earlier run.

        Raises:
            PlanError: the earlier run had other inputs.
            ImageError: the folder is not that of a prediction.

        The caller removes the folder of a run that succeeds, when all is done that comes after it.
        """
        try:
            if Ledger.exists(self.folder) and not restart:
                self.ledger = Ledger.resume(self.folder, self.identity())
            elif self.folder.exists() and not restart and not all(map(is_hidden, self.folder.iterdir())):
                raise ImageError(
                    f"{self.folder} already exists and is not a resumable prediction; move it, or remove it with --restart"
                )
            yield self.ledger
        except BaseException as error:
            wrong = isinstance(error, ProcessingError | PackageError)
            was_removed = self.ledger is not None and not self.ledger.is_in_place
            self._close(keep=self._has_finished_units() or (not wrong and has_checkpoint(self.folder)))
            if was_removed and isinstance(error, Exception):
                self._open_ledger().check_in_place()
            raise
        self._close(keep=True)

    def run_tiles(
        self,
        prepared: Prepared,
        *,
        progress: Progress | None = None,
        planned: Callable[[Plan, int], None] | None = None,
    ) -> tuple[Counts, int]:
        """Run the unfinished tiles of a plan and move the outputs to their paths.

        Args:
            prepared: the plan and its network.
            progress: called with the stage, the finished voxels and their total number.
            planned: called before the first tile with the plan and the number of tiles that an earlier run finished.

        Returns:
            The counts, and the number of tiles that an earlier run finished.
        """
        plan = prepared.plan
        if self.ledger is None:
            remove_folder(self.folder)
            self.ledger = Ledger.start(self.folder, self.identity(), decisions_of(prepared))
        before = self.finished()
        appeared = self._appeared_outputs(plan, before)
        if planned is not None:
            planned(plan, len(before.tiles))
        outputs = Outputs(
            plan,
            self.images,
            self.paths,
            self.folder,
            overwrite=self.overwrite,
            kind=self.settings.format,
            attributes=self.provenance(plan),
            reduced=before.pyramids,
            on_reduced=self.record_pyramid,
            appeared=appeared,
            on_finished=lambda n, partial: note_delivery(self._open_ledger(), TILES, {n: partial}),
        )
        with outputs:
            self.check_stored()
            counts = self._tile_stages(prepared, outputs, before, progress).run()
            self.check_inputs(thoroughly=True)
            self.check_stored()
            # On the disk before the first output takes its place.
            self.flush()
            self._note_tables(plan)
        return Counts(counts.tiles, counts.voxels, counts.not_finite + before.not_finite), len(before.tiles)

    def _appeared_outputs(self, plan: Plan, before: Finished) -> frozenset[int]:
        """Return the outputs that an interrupted run has already moved to their paths.

        Raises:
            PlanError: a partial output with finished tiles is missing.
        """
        if not before.tiles:
            return frozenset()
        images = {n for n, target in enumerate(plan.outputs) if target.image_shape}
        appeared = images & delivered(self.folder, TILES, self.paths)
        lost = sorted(n for n in images - appeared if not (self.folder / self.paths[n].name).exists())
        if lost:
            raise PlanError(
                f"{self.folder / self.paths[lost[0]].name}: the partial output is missing, so its finished tiles are lost; start "
                "over with --restart"
            )
        return frozenset(appeared)

    def _note_tables(self, plan: Plan) -> None:
        """Note the tables that are about to take their places: each is a file in a folder, until then."""
        tables = {n: path.name for n, path in enumerate(self.paths) if not plan.outputs[n].image_shape}
        note_delivery(
            self._open_ledger(), TILES, {n: self.folder / name / name for n, name in tables.items()}
        )

    def finished(self) -> Finished:
        """Return the finished units, sorted by stage."""
        return Finished.of(self._open_ledger().done)

    def record(self, record: Record) -> None:
        """Record a unit as finished."""
        self._open_ledger().record(record)

    def record_pyramid(self, output: int, level: int, block: int, stored: Stored) -> None:
        """Record a block of a pyramid as finished, with its files."""
        self.record(
            Record("pyramid", block, output=output, level=level, files=stored.files, bytes=stored.bytes)
        )

    def check_stored(self, labels: Path | None = None) -> None:
        """Check that the files of all recorded units are there.

        Args:
            labels: the label image, if its units are to be checked as well.

        Raises:
            ImageError: the folder or some files were removed, replaced or cut short.
        """
        ledger, finished = self._open_ledger(), self.finished()
        ledger.check_in_place()
        with self._marked_if_lost():
            self._check_images(finished)
            if labels is not None:
                check_files([labels], finished.labels)

    def _check_images(self, finished: Finished) -> None:
        appeared = delivered(self.folder, TILES, self.paths)
        check_files(
            [p if n in appeared else self.folder / p.name for n, p in enumerate(self.paths)], finished.images
        )

    def flush(self) -> None:
        """Write pending records to the disk."""
        self._open_ledger().flush()

    def note_result(self, number: int, partial: Path) -> None:
        """Note that a finished result is about to take its place; it must be on the disk."""
        self.flush()
        note_delivery(self._open_ledger(), RESULTS, {number: partial})

    def main_image(self, plan: Plan) -> xr.DataArray:
        """Return the image that defines the pixel sizes of the outputs."""
        return main_image(plan, self.images)

    def provenance(self, plan: Plan) -> dict[str, Any]:
        """Return the provenance that is written to an output, with all that identifies its command."""
        return {
            **_provenance(plan, self.package),
            "identity": identity_hashes(self.identity()),
            "decisions": dict(self._open_ledger().decisions),
        }

    def _has_finished_units(self) -> bool:
        return self.ledger is not None and bool(self.ledger.done)

    def _open_ledger(self) -> Ledger:
        if self.ledger is None:
            raise RuntimeError("no ledger is open: start or resume a run first")
        return self.ledger

    def _tile_stages(
        self, prepared: Prepared, outputs: Outputs, before: Finished, progress: Progress | None
    ) -> TileStages:
        plan, ledger, local = prepared.plan, self._open_ledger(), self.executor.shares_memory
        samples = SampleMaker(
            plan,
            self.package,
            self.images,
            allow_code=self.allow_code,
            measured=_known_statistics(ledger),
            folder=None if local else self.folder,
            checkpoints=self.folder,
            limits=self.limits,
            progress=None if progress is None else lambda n, of: progress("statistics", n, of),
        )
        finished: dict[TileStageName, frozenset[int]] = {"tiles": before.tiles, "finish": before.finish}
        scratch_folder = ScratchFolder(plan, self.folder, fresh=not before.tiles)
        scratch = new_scratch(plan, scratch_folder)
        last: TileStageName = "finish" if scratch else "tiles"
        for unit in sorted(finished[last]):
            outputs.mark(unit)

        def done(stage: TileStageName, unit: int, report: Report) -> None:
            if not local and stage == last == "tiles":
                outputs.mark(unit)
            _note_statistics(ledger, samples, unit // plan.tiles_per_sample)
            written = [n for n in range(len(plan.outputs)) if (n in scratch) == (stage == "finish")]
            files, size = outputs.stored(unit, written)
            ledger.record(Record(stage, unit, not_finite=report.not_finite, files=files, bytes=size))
            self.check_inputs()

        make_job: Callable[[], TileJob]
        if local:
            make_job = partial(TileJob, samples, prepared.engine, outputs.sinks, scratch)
        else:
            left = set(range(len(plan))) - before.tiles
            for number in sorted({unit // plan.tiles_per_sample for unit in left}):
                samples(number)
                _note_statistics(ledger, samples, number)
            make_job = _JobMaker.of(self, prepared, outputs, scratch, samples.measured)

        def check_scratch() -> None:
            with self._marked_if_lost():
                scratch_folder.check(tuple(scratch))

        return TileStages(
            samples, outputs.sinks, scratch, self.executor, make_job, finished, done, progress, check_scratch
        )

    def _close(self, *, keep: bool) -> None:
        if self.ledger is None:
            return
        self.ledger.close()
        # Without its ledger a folder that was removed, and then written to, cannot be resumed.
        if not keep or not Ledger.exists(self.folder):
            remove_folder(self.folder)


@dataclass(frozen=True)
class _JobMaker:
    """Create the tile job of a worker from picklable data, in another process or on another machine."""

    plan: Plan
    root: str
    images: Mapping[str, xr.DataArray]
    sinks: Sequence[Sink]
    scratch: Sequence[int]
    folder: Path
    measured: Mapping[str, Any]
    device: str
    threads: int | None
    allow_code: bool

    @classmethod
    def of(
        cls,
        run: PredictionRun,
        prepared: Prepared,
        outputs: Outputs,
        scratch: Mapping[int, Scratch],
        measured: Mapping[str, Any],
    ) -> "_JobMaker":
        return cls(
            prepared.plan,
            str(run.package.root),
            dict(run.images),
            outputs.parts(),
            sorted(scratch),
            run.folder,
            dict(measured),
            prepared.engine.device,
            run.threads,
            run.allow_code,
        )

    def __call__(self) -> TileJob:
        set_up_memory()
        package = open_package(self.root)
        samples = SampleMaker(
            self.plan,
            package,
            self.images,
            allow_code=self.allow_code,
            measured=dict(self.measured),
            folder=self.folder,
        )
        open_scratch = ScratchFolder(self.plan, self.folder, fresh=False)
        scratch: dict[int, Scratch] = {n: open_scratch(n, (), "") for n in self.scratch}
        engine = package.open_engine(
            self.plan.weights_format,
            allow_code=self.allow_code,
            device=self.device,
            threads=self.threads,
            backend=self.plan.backend,
            precision=self.plan.precision,
        )
        return TileJob(samples, engine, self.sinks, scratch)


def _known_statistics(ledger: Ledger) -> dict[str, Any]:
    prefix = "statistics "
    return {k.removeprefix(prefix): v for k, v in ledger.notes.items() if k.startswith(prefix)}


def _note_statistics(ledger: Ledger, samples: SampleMaker, sample: int) -> None:
    """Write the statistics of a sample to the ledger."""
    for key, found in list(samples.measured.items()):
        name = f"statistics {key}"
        if key.startswith(f"{sample}/") and found and ledger.notes.get(name) != found:
            ledger.note(name, dict(found))


def _provenance(plan: Plan, package: Package) -> dict[str, Any]:
    weights = package.path(package.weights_entry(plan.weights_format))
    identity = package.description.id
    return {
        "model": package.name,
        "model_id": None if identity is None else str(identity),
        "model_version": package.version,
        "weights": plan.weights_format,
        "weights_sha256": sha256(weights),
        "im2im_zoo": version("im2im_zoo"),
        "plan": plan.to_json(),
    }
