"""Predict: a package and images to output files, or to arrays. Glue between reading, planning, running and writing."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.engines import Engine
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute.outputs import check_free, main_image, output_paths
from im2im_zoo.runtime.execute.resume import Run, work_folder
from im2im_zoo.runtime.execute.run import Figures, Progress
from im2im_zoo.runtime.execute.staged import FOLDER, Staged
from im2im_zoo.runtime.inputs import Image, at_model_scale, open_inputs
from im2im_zoo.runtime.layout.mapping import map_axes
from im2im_zoo.runtime.measure.cost import peak_bytes, restart_peak
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.prepare import Prepared, prepare
from im2im_zoo.runtime.settings import Format, Halo, Settings


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """What a prediction did.

    Attributes:
        output: the image that was written; `outputs` are all of them.
        plan: what was run.
        seconds: of running the plan; reading, statistics and writing included, opening the network not.
        voxels: written in this run, without channels.
        tiles: runs of the network in this run; `resumed` is how many an earlier run had done.
        not_finite: values of the output that are NaN or infinite; more than 0 means that the model failed there.
        peak_bytes: the largest resident memory of this process while the plan ran.
        input_bytes, output_bytes: of the images, uncompressed.
        reason: why the engine was chosen.
        labels: the label image, of a package with grouping: within the output or the output itself; `objects` are in it.
        warnings: what a person should know of the result, beside those of the plan.
    """

    outputs: tuple[Path, ...]
    plan: Plan
    seconds: float
    voxels: int
    tiles: int
    resumed: int
    not_finite: int
    peak_bytes: int
    input_bytes: int
    output_bytes: int
    reason: str = ""
    labels: Path | None = None
    objects: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """The first output."""
        return self.outputs[0]

    @property
    def voxels_per_second(self) -> float:
        """Voxels of the output a second."""
        return self.voxels / max(self.seconds, 1e-9)


def predict(
    package: Package | str | Path,
    image: Image,
    output: str | Path,
    *,
    inputs: Mapping[str, Image] | None = None,
    outputs: Mapping[str, str | Path] | None = None,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    join: Sequence[Image] = (),
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    halo: Halo = "auto",
    blend: bool | None = None,
    weights: str | None = None,
    backend: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    workers: int = 1,
    rescale: bool = False,
    dtype: str | None = None,
    group: bool = True,
    ome_zarr_version: str | None = None,
    shards: bool | None = None,
    allow_code: bool = False,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
    planned: Callable[[Plan, int], None] | None = None,
    engine: Engine | None = None,
    cost: Cost | None = None,
) -> PredictionResult:
    """Run a package on an image of any size and write the result.

    What is done is kept beside the output, in `OUTPUT.incomplete`, until all is: after a crash, a kill, a full disk or an
    interrupt the same call goes on where it was, and gives what an unbroken run gives.

    Args:
        package: an open package, or what `open_package` takes.
        image: of the main input: a lazy image, or the path of one.
        output: path of the image to write; its suffix says the format.
        inputs: images of further inputs, by id.
        outputs: paths of further outputs, by id (default: beside `output`, with their id in the name).
        axes, channels: of the main image's file, see `open_image`.
        join: images of the same place, whose channels follow those of the main one; `channels` chooses among all of them.
        memory: bytes that all processes may take (default: half of what is available).
        tile, halo, blend, weights, backend, precision, device, dtype, rescale: see `Settings`.
        group: whether to make instance labels of the output of a package with grouping. They are put into an OME-Zarr of the
            maps (`labels/instances`); any other output is the label image itself, whose type is `dtype`.
        threads: of the network, within one process.
        workers: processes that run tiles.
        ome_zarr_version, shards: see `Format`.
        allow_code: whether Python of the package may run (`pytorch_state_dict`, `custom` operations, a grouping of others).
        overwrite: replace the output if it exists; otherwise that is an error.
        restart: throw away what an earlier run has left unfinished, instead of going on with it.
        progress: called with the stage, the voxels done and all of them.
        planned: called with the plan and the number of tiles that an earlier run has done, before the first tile.
        engine, cost: of an earlier prediction with this package, so that many images pay for them once.

    Raises:
        PackageError, ImageError, AxesError, PlanError, ProcessingError: whatever cannot be; nothing is at `output` then.
    """
    settings = Settings(
        tile,
        halo,
        blend,
        weights,
        backend,
        precision,
        device,
        dtype,
        rescale,
        Format(ome_zarr_version, shards),
        group,
    )
    opened = package if isinstance(package, Package) else open_package(package)
    try:
        originals = open_inputs(opened, image, inputs, axes=axes, channels=channels, join=join)
        images, warnings = at_model_scale(opened, originals, settings)
        layout = map_axes(opened, images)
        paths = output_paths(layout, Path(output), {k: Path(v) for k, v in (outputs or {}).items()})
        check_free(paths, images.values(), overwrite=overwrite)
        work = work_folder(paths[0])
        staged = Staged.of(opened, layout, paths, work, settings, overwrite=overwrite, allow_code=allow_code)
        if staged and not restart:
            staged.check_work(work)
        first, folder = (staged.sources, work / FOLDER) if staged else (paths, work)
        run = Run(opened, images, first, settings, folder, overwrite or staged is not None, allow_code)
        with run.open(restart=restart) as ledger:
            prepared = prepare(
                opened,
                images,
                settings,
                memory=memory,
                workers=workers,
                threads=threads,
                allow_code=allow_code,
                engine=engine,
                cost=cost,
                decisions=ledger.decisions if ledger is not None else None,
                warnings=warnings,
            )
            restart_peak()
            start = time.perf_counter()
            if staged and ledger is None:
                staged.discard()
            if staged and ledger is not None and staged.are_made:
                figures, resumed = Figures(len(prepared.plan), 0, run.not_finite()), len(prepared.plan)
                if planned is not None:
                    planned(prepared.plan, resumed)
            else:
                figures, resumed = run.execute(prepared, threads=threads, progress=progress, planned=planned)
            made = None
            if staged:
                original = main_image(prepared.plan, originals)
                made = staged.deliver(
                    run, prepared.plan, original, progress, workers=workers, threads=threads
                )
        shutil.rmtree(work, ignore_errors=True)
        done = _result(prepared, figures, paths, time.perf_counter() - start, resumed, images)
        if staged is None or made is None:
            return done
        return replace(done, labels=staged.labels, objects=made.objects, warnings=made.warnings)
    finally:
        if opened is not package:
            opened.close()


def plan_with_engine(
    package: Package,
    image: Image,
    inputs: Mapping[str, Image] | None = None,
    *,
    memory: int | None = None,
    workers: int = 1,
    threads: int | None = None,
    allow_code: bool = False,
    **settings: Any,
) -> Plan:
    """The plan that `predict` would follow, with all that it rests on measured; nothing is written.

    Args:
        settings: see `Settings`.
    """
    wishes = Settings(**settings)
    images, warnings = at_model_scale(package, open_inputs(package, image, inputs), wishes)
    return prepare(
        package,
        images,
        wishes,
        memory=memory,
        workers=workers,
        threads=threads,
        allow_code=allow_code,
        warnings=warnings,
    ).plan


def _result(
    prepared: Prepared,
    figures: Figures,
    paths: Sequence[Path],
    seconds: float,
    resumed: int,
    images: Mapping[str, xr.DataArray],
) -> PredictionResult:
    plan = prepared.plan
    return PredictionResult(
        tuple(paths),
        plan,
        seconds,
        figures.voxels,
        figures.tiles - resumed,
        resumed,
        figures.not_finite,
        peak_bytes(),
        sum(i.size * i.dtype.itemsize for i in images.values()),
        plan.output_bytes,
        prepared.reason,
    )
