"""A prediction that survives being stopped: its folder beside the output, what is recorded there, and who runs the tiles.

    result.ome.zarr.incomplete/      marks the output as incomplete; removed when the output appears
        ledger.json, done.log        what was decided, and the tiles that are done (see `ledger`)
        result.ome.zarr              the output as it grows
        scratch_0.zarr               the network's output, where postprocessing needs all of it
        0_raw.npy                    inputs that are processed whole
        statistics_....npz           what statistics of a large image have counted so far

Records are `tiles N F` and `finish N F` (tile N of that stage is done, F of its values are not finite), `level O L B`
(block B of level L of the pyramid of output O is written) and those of what is made of the outputs then (see `staged`).
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.errors import ImageError, PackageError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import Engine, open_engine
from im2im_zoo.images.sink import Sink
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute.checkpoint import any_checkpoint
from im2im_zoo.runtime.execute.executors.in_process import run_here
from im2im_zoo.runtime.execute.executors.process_pool import run_in_processes
from im2im_zoo.runtime.execute.fingerprint import image_fingerprint, package_fingerprint
from im2im_zoo.runtime.execute.ledger import Ledger
from im2im_zoo.runtime.execute.outputs import Outputs, main_image, scratch_chunks
from im2im_zoo.runtime.execute.run import Figures, Progress, Walk, new_scratch
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.staged import FOLDER
from im2im_zoo.runtime.execute.tile_job import Report, Scratch, TileJob
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.prepare import Prepared, decisions_of
from im2im_zoo.runtime.settings import Settings

SUFFIX = ".incomplete"


def work_folder(output: Path) -> Path:
    """Where an output is made that is not there yet."""
    return output.with_name(output.name + SUFFIX)


def unfinished(output: Path) -> Path | None:
    """The folder of an unfinished prediction to this output, if there is one."""
    folder = work_folder(Path(output))
    return folder if folder.is_dir() and any(Ledger.exists(f) for f in (folder, folder / FOLDER)) else None


@dataclass(slots=True)
class Run:
    """One prediction with its folder: `open` it, then `execute` what was prepared."""

    package: Package
    images: Mapping[str, xr.DataArray]
    paths: Sequence[Path]
    settings: Settings
    folder: Path
    overwrite: bool = False
    allow_code: bool = False
    ledger: Ledger | None = None

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        return {
            "package": package_fingerprint(self.package),
            "images": {name: image_fingerprint(image) for name, image in self.images.items()},
            "settings": self.settings.to_json(),
            "outputs": [p.name for p in self.paths],
            "im2im_zoo": version("im2im_zoo"),
        }

    @contextmanager
    def open(self, *, restart: bool = False) -> Iterator[Ledger | None]:
        """The ledger of an earlier run that is gone on with, or None. What has nothing done is removed after an error.

        Raises:
            PlanError: the earlier run was of something else, or is still running.
        """
        try:
            if Ledger.exists(self.folder) and not restart:
                self.ledger = Ledger.resume(self.folder, self.identity())
            elif self.folder.exists() and not restart and any(self.folder.iterdir()):
                raise ImageError(
                    f"{self.folder} is in the way: it is no unfinished prediction; move it away, or remove it with --restart"
                )
            yield self.ledger
        except BaseException as error:
            wrong = isinstance(error, ProcessingError | PackageError)
            self._close(keep=self._has_something_done() or (not wrong and any_checkpoint(self.folder)))
            raise
        self._close(keep=False)

    def execute(
        self,
        prepared: Prepared,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
        planned: Callable[[Plan, int], None] | None = None,
    ) -> tuple[Figures, int]:
        """Run what is left of a plan and let the outputs appear.

        Returns:
            What was counted, and how many tiles an earlier run had done.
        """
        plan = prepared.plan
        if self.ledger is None:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.ledger = Ledger.start(self.folder, self.identity(), decisions_of(prepared))
        ledger = self.ledger
        records = _Records.of(ledger)
        finished, reduced, before = records.finished, records.reduced, records.not_finite
        if planned is not None:
            planned(plan, len(finished["tiles"]))
        outputs = Outputs(
            plan,
            self.images,
            self.paths,
            self.folder,
            overwrite=self.overwrite,
            kind=self.settings.format,
            attributes=self.provenance(plan),
            reduced=reduced,
            on_reduced=lambda number, level, block: ledger.record(f"level {number} {level} {block}"),
        )
        with outputs:
            figures = self._walk(prepared, outputs, finished, threads, progress)
            ledger.flush()
        return Figures(figures.tiles, figures.voxels, figures.not_finite + before), len(finished["tiles"])

    def grouped(self) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Of the label image: the objects of each sample that is done, and the blocks of the pyramid (level, block)."""
        records = _Records.of(self._the_ledger())
        return records.objects, records.reduced.get(len(self.paths), [])

    def grouped_blocks(self) -> set[tuple[int, str, int]]:
        """What is done of samples that are grouped in blocks: the sample, the step and the block."""
        return _Records.of(self._the_ledger()).blocks

    def record(self, key: str) -> None:
        """Count something as done."""
        self._the_ledger().record(key)

    def flush(self) -> None:
        """See that what is recorded is on the disk."""
        self._the_ledger().flush()

    def not_finite(self) -> int:
        """Values that were not finite, of the tiles that are recorded."""
        return _Records.of(self._the_ledger()).not_finite

    def main_image(self, plan: Plan) -> xr.DataArray:
        """The image whose voxels the outputs' are counted in."""
        return main_image(plan, self.images)

    def provenance(self, plan: Plan) -> dict[str, Any]:
        """What an output says of how it was made."""
        return _provenance(plan, self.package)

    def _has_something_done(self) -> bool:
        return self.ledger is not None and bool(self.ledger.done)

    def _the_ledger(self) -> Ledger:
        if self.ledger is None:
            raise RuntimeError("there is a ledger once a run is executed or gone on with")
        return self.ledger

    def _walk(
        self,
        prepared: Prepared,
        outputs: Outputs,
        finished: Mapping[str, set[int]],
        threads: int | None,
        progress: Progress | None,
    ) -> Figures:
        plan, ledger = prepared.plan, self._the_ledger()
        measured = {
            k.removeprefix("statistics "): v for k, v in ledger.notes.items() if k.startswith("statistics ")
        }
        folder = self.folder if plan.workers > 1 else None
        samples = SampleMaker(
            plan,
            self.package,
            self.images,
            allow_code=self.allow_code,
            measured=measured,
            folder=folder,
            checkpoints=self.folder,
            progress=None if progress is None else lambda n, of: progress("statistics", n, of),
        )
        scratch = new_scratch(plan, _ScratchFolder(plan, self.folder, fresh=not finished["tiles"]))
        last = "finish" if scratch else "tiles"
        for unit in sorted(finished[last]):
            outputs.mark(unit)

        def done(stage: str, unit: int, report: Report) -> None:
            if plan.workers > 1 and stage == last == "tiles":
                outputs.mark(unit)
            _note_statistics(ledger, samples, unit // plan.tiles_per_sample)
            ledger.record(f"{stage} {unit} {report.not_finite}")

        def executor(units: Sequence[int], tell: Callable[[int, Report], None]) -> None:
            if plan.workers == 1:
                run_here(TileJob(samples, prepared.engine, outputs.sinks, scratch), units, tell)
                return
            for number in sorted({u // plan.tiles_per_sample for u in units}):
                samples(number)
                _note_statistics(ledger, samples, number)
            maker = _JobMaker.of(self, prepared, outputs, scratch, samples.measured, threads)
            run_in_processes(maker, units, plan.workers, tell, threads=threads)

        walk = Walk(samples, outputs.sinks, scratch, executor, finished, done, progress)
        return walk.run()

    def _close(self, *, keep: bool) -> None:
        if self.ledger is None:
            return
        self.ledger.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class _JobMaker:
    """Makes the job of a worker: everything that it needs, as plain data. (An executor on other machines needs no more.)"""

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
        run: Run,
        prepared: Prepared,
        outputs: Outputs,
        scratch: Mapping[int, Scratch],
        measured: Mapping[str, Any],
        threads: int | None,
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
            threads,
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
        open_scratch = _ScratchFolder(self.plan, self.folder, fresh=False)
        scratch: dict[int, Scratch] = {n: open_scratch(n, (), "") for n in self.scratch}
        return TileJob(samples, self._engine(package), self.sinks, scratch)

    def _engine(self, package: Package) -> Engine:
        entry = package.weights_entry(self.plan.weights_format)
        return open_engine(
            self.plan.weights_format,
            package.path(entry),
            architecture=getattr(entry, "architecture", None),
            root=package.root,
            allow_code=self.allow_code,
            device=self.device,
            threads=self.threads,
            backend=self.plan.backend,
            description=package.description,
            precision=self.plan.precision,
        )


@dataclass(frozen=True, slots=True)
class _ScratchFolder:
    """Makes or opens scratch arrays in the folder of a run; no two tiles share a chunk."""

    plan: Plan
    folder: Path
    fresh: bool

    def __call__(self, number: int, shape: tuple[int, ...], dtype: str) -> Any:
        import zarr

        path = self.folder / f"scratch_{number}.zarr"
        if not self.fresh:
            return zarr.open_array(path, mode="r+")
        chunks = scratch_chunks(self.plan, number, shape)
        return zarr.create_array(
            store=str(path), shape=shape, chunks=chunks, dtype=dtype, compressors=None, overwrite=True
        )


@dataclass(frozen=True, slots=True)
class _Records:
    """What a ledger says is done.

    Attributes:
        finished: the tiles of each stage.
        reduced: the blocks of the pyramids (level, block), by output; the label image has the number after the last.
        not_finite: values of the tiles.
        objects: of each sample that is grouped.
        blocks: sample, step and block of what is done of those that are grouped in blocks.
    """

    finished: dict[str, set[int]]
    reduced: dict[int, list[tuple[int, int]]]
    not_finite: int
    objects: dict[int, int]
    blocks: set[tuple[int, str, int]]

    @classmethod
    def of(cls, ledger: Ledger) -> "_Records":
        finished: dict[str, set[int]] = {"tiles": set(), "finish": set()}
        reduced: dict[int, list[tuple[int, int]]] = {}
        objects: dict[int, int] = {}
        blocks: set[tuple[int, str, int]] = set()
        not_finite = 0
        for record in ledger.done:
            kind, *words = record.split()
            if kind == "block":
                blocks.add((int(words[0]), words[1], int(words[2])))
                continue
            numbers = [int(word) for word in words]
            if kind == "level":
                reduced.setdefault(numbers[0], []).append((numbers[1], numbers[2]))
            elif kind == "group":
                objects[numbers[0]] = numbers[1]
            else:
                finished[kind].add(numbers[0])
                not_finite += numbers[1]
        return cls(finished, reduced, not_finite, objects, blocks)


def _note_statistics(ledger: Ledger, samples: SampleMaker, sample: int) -> None:
    """Keep the statistics of a sample, so that they are not taken again."""
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
