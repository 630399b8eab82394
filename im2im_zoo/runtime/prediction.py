"""Predict: a package and images to output files, or to arrays. Glue between reading, planning, running and writing."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.engines import Engine
from im2im_zoo.errors import PlanError
from im2im_zoo.images import open_image
from im2im_zoo.package import Package, open_package
from im2im_zoo.processing.grouping import INSTANCES
from im2im_zoo.runtime.blockwise.sample import Code
from im2im_zoo.runtime.cost import peak_bytes, restart_peak
from im2im_zoo.runtime.grouping import group_samples
from im2im_zoo.runtime.mapping import images_by_input, main_input, map_axes
from im2im_zoo.runtime.memory import Cost
from im2im_zoo.runtime.outputs import (
    OF_LABELS,
    Format,
    check_free,
    main_image,
    output_image,
    output_paths,
    output_pixel_size,
    output_translation,
)
from im2im_zoo.runtime.plan import Plan
from im2im_zoo.runtime.planning import plan_prediction
from im2im_zoo.runtime.prepare import Halo, Prepared, Settings, prepare
from im2im_zoo.runtime.rescale import (
    pixel_size_warning,
    resampled,
    rescale_factors,
)
from im2im_zoo.runtime.resume import Run, work_folder
from im2im_zoo.runtime.run import Figures, Progress, run_plan
from im2im_zoo.runtime.staged import FOLDER, Staged

Image = xr.DataArray | str | Path


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
        originals = open_inputs(opened, image, inputs, axes=axes, channels=channels)
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


def open_inputs(
    package: Package,
    image: Image,
    inputs: Mapping[str, Image] | None = None,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
) -> dict[str, xr.DataArray]:
    """The images by input: the main one, with its axes and channels, and further ones.

    Raises:
        PlanError, ImageError, AxesError: an input that the model does not have or lacks, or an image that cannot be opened.
    """
    main = main_input(package)
    if inputs and main in inputs:
        raise PlanError(f"the image of the input {main} is given twice")
    lazy = {
        main: image if isinstance(image, xr.DataArray) else open_image(image, axes=axes, channels=channels)
    }
    for name, other in (inputs or {}).items():
        lazy[name] = other if isinstance(other, xr.DataArray) else open_image(other)
    return images_by_input(package, lazy)


def at_model_scale(
    package: Package, images: Mapping[str, xr.DataArray], settings: Settings
) -> tuple[dict[str, xr.DataArray], list[str]]:
    """The images, resampled to the model's pixel size if that is wanted, and what to warn of if it is not."""
    main = images[main_input(package)] if main_input(package) in images else next(iter(images.values()))
    if not settings.rescale:
        warning = pixel_size_warning(package, main)
        return dict(images), [] if warning is None else [warning]
    factors = rescale_factors(package, main)
    return {
        name: resampled(i, {a: f for a, f in factors.items() if a in i.dims}) for name, i in images.items()
    }, []


def predict_arrays(
    package: Package,
    image: xr.DataArray | Mapping[str, xr.DataArray],
    *,
    engine: Engine | None = None,
    cost: Cost | None = None,
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    halo: Halo = "auto",
    blend: bool | None = None,
    weights: str | None = None,
    backend: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    allow_code: bool = False,
    dtype: str | None = None,
    group: bool = True,
    whole: bool = False,
    progress: Progress | None = None,
) -> dict[str, xr.DataArray]:
    """Run a package on images and return the results in memory, by the ids of the outputs.

    The labels of a package with grouping are beside its maps, as `instances`.

    Args:
        image: of the main input, or all by input.
        whole: run each sample as one tile: what every tiling has to give.
        engine: an open network of this package (default: it is opened).
        cost: of the network (default: measured, for `whole` not).

    An output whose size depends on the data has the axes of its tensor. The other arguments are those of `predict`, which
    also says what is raised.
    """
    images = images_by_input(package, image)
    settings = Settings(tile, halo, blend, weights, backend, precision, device, dtype, group=group)
    grouping = package.grouping if group else None
    code = None if grouping is None else Code(grouping, package.root, allow_code)
    if code is not None:
        code.load()
    if whole:
        network = engine or _opened(package, settings, threads, allow_code)
        plan = plan_prediction(
            package,
            images,
            weights=network.weights_format,
            backend=network.backend,
            precision=network.precision,
            cost=cost,
            dtype=dtype,
            whole=True,
            group=group,
        )
    else:
        prepared = prepare(
            package,
            images,
            settings,
            memory=memory,
            threads=threads,
            allow_code=allow_code,
            engine=engine,
            cost=cost,
        )
        plan, network = prepared.plan, prepared.engine
    sinks = [_ArraySink.of(plan, n) for n in range(len(plan.outputs))]
    run_plan(plan, package, network, images, sinks, allow_code=allow_code, progress=progress)
    main = main_image(plan, images)
    results = {o.id: sinks[n].image(plan, n, main) for n, o in enumerate(plan.outputs)}
    if code is not None:
        results[INSTANCES] = _grouped(plan, code, next(iter(results.values())), main)
    return results


def predict_array(
    package: Package, image: xr.DataArray | Mapping[str, xr.DataArray], **options: Any
) -> xr.DataArray:
    """Run a package of one output on an image and return the result in memory: its labels, if it has a grouping.

    See `predict_arrays` for the options; with `group=False` the maps are returned.

    Raises:
        PlanError: the package has several outputs.
    """
    results = predict_arrays(package, image, **options)
    if INSTANCES in results and package.grouping is not None:
        return results[INSTANCES]
    if len(results) != 1:
        raise PlanError(
            f"{package.name} has {len(results)} outputs: {', '.join(results)}; use predict_arrays"
        )
    return next(iter(results.values()))


def _grouped(plan: Plan, code: Code, maps: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    """The labels of maps in memory."""
    if plan.grouping is None:
        raise ValueError("a plan without grouping")
    labels = np.zeros(plan.grouping.shape, plan.grouping.dtype)
    with tempfile.TemporaryDirectory() as folder:
        group_samples(plan, code, maps, _ArraySink(labels, plan.grouping.axes), Path(folder))
    result = xr.DataArray(labels, dims=plan.grouping.axes, name=INSTANCES, attrs=maps.attrs)
    result.attrs |= {"pixel_size_um": output_pixel_size(plan, OF_LABELS, image)}
    result.attrs.pop("translation_um", None)
    if translation := output_translation(plan, OF_LABELS, image):
        result.attrs["translation_um"] = translation
    if "channel" in plan.grouping.axes and "channel" in maps.coords:
        result = result.assign_coords(channel=maps["channel"].values)
    return result


def _opened(package: Package, settings: Settings, threads: int | None, allow_code: bool) -> Engine:
    from im2im_zoo.runtime.choice import open_network

    return open_network(
        package,
        weights=settings.weights,
        backend=settings.backend,
        precision=settings.precision,
        device=settings.device,
        threads=threads,
        allow_code=allow_code,
    ).engine


@dataclass(slots=True)
class _ArraySink:
    """An output in memory; one whose shape depends on the data is what was written last."""

    array: NDArray[Any]
    axes: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, number: int) -> "_ArraySink":
        target = plan.outputs[number]
        if target.image_shape is None and plan.samples > 1:
            raise PlanError(
                f"{plan.model}: the size of its output {target.id} depends on the data, so that the outputs of {plan.samples} "
                "samples are no one array; give one sample at a time"
            )
        return cls(np.empty(target.image_shape or (), target.dtype), target.image_axes)

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        if self.array.shape:
            self.array[tuple(region[a] for a in self.axes)] = block
        else:
            self.array = block

    def image(self, plan: Plan, number: int, main: xr.DataArray) -> xr.DataArray:
        target = plan.outputs[number]
        if target.image_shape:
            return output_image(plan, number, self.array, main)
        dims = [a for a in target.axes if a != "batch"]
        return xr.DataArray(self.array, dims=dims, name=target.id)


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
