"""The open model: plan and run predictions, to files or in memory.

Modules in the order of a prediction: `inputs` -> `layout` (axes) -> `prepare` (`measure`, `plan`) -> `execute` (stages).
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError
from im2im_zoo.engines import Engine
from im2im_zoo.images import memory_image
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute.delivery import Delivered, choose_delivery
from im2im_zoo.runtime.execute.executors import executor_for
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.execute.instances import segment_instances
from im2im_zoo.runtime.execute.outputs import (
    LABEL_IMAGE,
    check_free,
    main_image,
    output_image,
    output_paths,
    output_pixel_size,
    output_translation,
)
from im2im_zoo.runtime.execute.prediction_run import PredictionRun
from im2im_zoo.runtime.execute.tile_stages import Counts, Progress, run_plan
from im2im_zoo.runtime.execute.work_folder import work_folder
from im2im_zoo.runtime.inputs import Image, open_inputs, rescale_to_model
from im2im_zoo.runtime.layout.mapping import images_by_input, map_axes
from im2im_zoo.runtime.measure.cost import peak_bytes, restart_peak
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.plan.planning import plan_prediction
from im2im_zoo.runtime.prepare import Networks, Prepared, prepare
from im2im_zoo.runtime.settings import Resources, Settings

Images = xr.DataArray | Mapping[str, xr.DataArray]


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The outputs of a prediction, with counts, time and memory.

    Attributes:
        outputs: paths of the outputs; `output` is the first.
        plan: of the prediction.
        seconds: time to run the plan: reading, statistics, network and writing, without opening the network.
        voxels: number written in this run, without channels.
        tiles: number of tiles that this run computed.
        resumed: number of tiles that an earlier run had finished.
        not_finite: number of output values that are NaN or infinite; above 0, the network failed there.
        peak_bytes: peak resident memory of this process while the plan ran.
        input_bytes, output_bytes: uncompressed sizes of the images.
        reason: why the engine was selected.
        labels: path of the label image of an instance segmentation: inside the output, or the output itself.
        objects: number of objects in the label image.
        warnings: about the result, in addition to those of the plan.
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
        """Output voxels per second."""
        return self.voxels / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Request:
    """The opened images of one prediction.

    Attributes:
        originals: by input, at the pixel size of their files.
        images: by input, at the pixel size of the model.
        warnings: about the images.
    """

    originals: Mapping[str, xr.DataArray]
    images: Mapping[str, xr.DataArray]
    warnings: tuple[str, ...] = ()


@dataclass
class Model:
    """An open model, whose network is opened and measured once and then predicts any number of images.

    Open one with `im2im_zoo.open_model`. `close` it, or use it in a `with` block, to remove the folder of a zipped package.

    Attributes:
        package: the model's package.
        allow_code: whether Python code of the package may run (`pytorch_state_dict`, `custom` operations, third-party
            instance methods).
        engine: an open network to use instead of selecting one.
        cost: its known memory cost.

    Example:
        >>> import im2im_zoo as zoo
        >>> with zoo.open_model("nuclei_2d") as model:
        ...     print(model.package.name)
        Nuclei in 2D fluorescence
    """

    package: Package
    allow_code: bool = False
    engine: Engine | None = None
    cost: Cost | None = None
    networks: Networks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.networks = Networks(self.package, self.allow_code, self.engine, self.cost)

    def plan(
        self,
        image: Image,
        *,
        inputs: Mapping[str, Image] | None = None,
        axes: str | None = None,
        channels: Sequence[int | str] | None = None,
        join: Sequence[Image] = (),
        settings: Settings | None = None,
        resources: Resources | None = None,
    ) -> Plan:
        """Return the plan that `predict` follows, without reading voxels or writing files.

        Args:
            image, inputs, axes, channels, join, settings, resources: see `predict`.

        Raises:
            PackageError, ImageError, AxesError, PlanError: the prediction is impossible.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> plan = model.plan(zoo.memory_image(np.zeros((512, 512), "float32"), axes="yx"))
            >>> len(plan) >= 1
            True
        """
        settings, resources = settings or Settings(), resources or Resources()
        request = self._open(image, inputs, axes, channels, join, settings)
        return self._prepare(request, settings, resources).plan

    def predict(
        self,
        image: Image,
        output: str | Path,
        *,
        inputs: Mapping[str, Image] | None = None,
        outputs: Mapping[str, str | Path] | None = None,
        axes: str | None = None,
        channels: Sequence[int | str] | None = None,
        join: Sequence[Image] = (),
        settings: Settings | None = None,
        resources: Resources | None = None,
        overwrite: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
        planned: Callable[[Plan, int], None] | None = None,
    ) -> PredictionResult:
        """Predict an image of any size and write the result.

        Resumable: partial results are kept in `OUTPUT.incomplete`. After a crash, a full disk or an interrupt, the same call
        resumes, and the result is bit-identical to that of an uninterrupted run.

        Args:
            image: of the main input: a lazy image, or the path of one.
            output: path of the image to write; its suffix selects the format.
            inputs: images of further inputs, by id.
            outputs: paths of further outputs, by id (default: next to `output`, with the id in the name).
            axes, channels: of the main image's file, see `open_image`.
            join: images of the same field of view, whose channels are appended; `channels` selects among all of them.
            settings: choices that change the result.
            resources: memory, processes and devices.
            overwrite: replace an existing output instead of raising an error.
            restart: remove the partial results of an earlier run instead of resuming it.
            progress: called with the stage, the finished voxels and their total number.
            planned: called before the first tile with the plan and the number of tiles that an earlier run finished.

        Raises:
            PackageError, ImageError, AxesError, PlanError, ProcessingError: the prediction fails; `output` is not created.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> image = zoo.memory_image(np.zeros((256, 256), "float32"), axes="yx")
            >>> model.predict(image, "nuclei.ome.zarr").output.name
            'nuclei.ome.zarr'
        """
        settings, resources = settings or Settings(), resources or Resources()
        request = self._open(image, inputs, axes, channels, join, settings)
        layout = map_axes(self.package, request.images)
        paths = output_paths(layout, Path(output), {k: Path(v) for k, v in (outputs or {}).items()})
        work = work_folder(paths[0])
        delivery = choose_delivery(
            self.package, layout, paths, work, settings, overwrite=overwrite, allow_code=self.allow_code
        )
        appeared = not restart and delivery.has_appeared()
        if not appeared:
            check_free(paths, request.images.values(), overwrite=overwrite)
        if not restart:
            delivery.check_work()
        run = PredictionRun(
            self.package,
            request.images,
            delivery.sources,
            settings,
            delivery.folder,
            executor_for(resources),
            resources.threads,
            delivery.replaces,
            self.allow_code,
        )
        with run.open(restart=restart) as ledger:
            decisions = None if ledger is None else ledger.decisions
            prepared = self._prepare(request, settings, resources, decisions)
            restart_peak()
            start = time.perf_counter()
            if ledger is None:
                delivery.discard()
            if ledger is not None and (appeared or delivery.are_sources_complete):
                counts, resumed = Counts(len(prepared.plan), 0, run.finished().not_finite), len(prepared.plan)
                if planned is not None:
                    planned(prepared.plan, resumed)
            else:
                counts, resumed = run.run_tiles(prepared, progress=progress, planned=planned)
            original = main_image(prepared.plan, request.originals)
            delivered = (
                delivery.delivered(run) if appeared else delivery.run(run, prepared.plan, original, progress)
            )
        shutil.rmtree(work, ignore_errors=True)
        seconds = time.perf_counter() - start
        return _result(prepared, counts, paths, seconds, resumed, request, delivered)

    def predict_arrays(
        self,
        images: Images,
        *,
        settings: Settings | None = None,
        resources: Resources | None = None,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, xr.DataArray]:
        """Predict images and return all outputs in memory.

        Args:
            images: of the main input, or all by input.
            settings, resources: see `predict`; the images are not rescaled.
            whole: run each sample as one tile, as a reference for tiled results.
            progress: called with the stage, the finished voxels and their total number.

        Returns:
            The images by output id; instance labels are added as `instances`. An output whose size depends on the data has
            the axes of its tensor.

        Raises:
            PackageError, ImageError, AxesError, PlanError, ProcessingError: the prediction fails.
        """
        settings, resources = settings or Settings(), resources or Resources()
        request = Request({}, images_by_input(self.package, images))
        grouping = self.package.grouping if settings.group else None
        code = None if grouping is None else Code(grouping, self.package.root, self.allow_code)
        if code is not None:
            code.load()
        prepared = (
            self._prepare_whole(request, settings, resources)
            if whole
            else self._prepare(request, settings, resources)
        )
        plan = prepared.plan
        sinks = [_ArraySink.of(plan, n) for n in range(len(plan.outputs))]
        run_plan(
            plan,
            self.package,
            prepared.engine,
            request.images,
            sinks,
            allow_code=self.allow_code,
            progress=progress,
        )
        main = main_image(plan, request.images)
        results = {o.id: sinks[n].image(plan, n, main) for n, o in enumerate(plan.outputs)}
        if code is not None:
            results[INSTANCES] = _instances(plan, code, next(iter(results.values())), main)
        return results

    def predict_array(
        self,
        image: Images | NDArray[Any],
        *,
        axes: str | None = None,
        settings: Settings | None = None,
        resources: Resources | None = None,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> xr.DataArray:
        """Predict an image in memory with a model of one output; return the labels if it segments instances.

        Args:
            image: an array with `axes`, a lazy image, or images by input.
            axes: letters of a numpy array's axes, such as `zyx` or `cyx`.
            settings: see `predict`; with `group=False` the maps are returned.
            resources, whole, progress: see `predict_arrays`.

        Raises:
            PlanError: the model has several outputs.
            AxesError: `axes` is missing for an array, or does not match its dimensions.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> result = model.predict_array(np.zeros((100, 120), "float32"), axes="yx")
            >>> result.sizes["y"], result.sizes["x"]
            (100, 120)
        """
        if isinstance(image, np.ndarray):
            image = memory_image(image, axes=axes)
        results = self.predict_arrays(
            image, settings=settings, resources=resources, whole=whole, progress=progress
        )
        if INSTANCES in results and self.package.grouping is not None:
            return results[INSTANCES]
        if len(results) != 1:
            raise PlanError(
                f"{self.package.name} has {len(results)} outputs: {', '.join(results)}; use predict_arrays"
            )
        return next(iter(results.values()))

    def close(self) -> None:
        """Remove the temporary folder of a package that was opened from a zip."""
        self.package.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(
        self,
        image: Image,
        inputs: Mapping[str, Image] | None,
        axes: str | None,
        channels: Sequence[int | str] | None,
        join: Sequence[Image],
        settings: Settings,
    ) -> Request:
        originals = open_inputs(self.package, image, inputs, axes=axes, channels=channels, join=join)
        images, warnings = rescale_to_model(self.package, originals, settings)
        return Request(originals, images, tuple(warnings))

    def _prepare(
        self,
        request: Request,
        settings: Settings,
        resources: Resources,
        decisions: Mapping[str, Any] | None = None,
    ) -> Prepared:
        layout = map_axes(self.package, request.images)
        return prepare(
            self.networks,
            request.images,
            layout,
            settings,
            resources,
            decisions=decisions,
            warnings=request.warnings,
        )

    def _prepare_whole(self, request: Request, settings: Settings, resources: Resources) -> Prepared:
        engine, reason = self.networks.open(settings, resources)
        plan = plan_prediction(
            self.package,
            request.images,
            weights=engine.weights_format,
            backend=engine.backend,
            precision=engine.precision,
            cost=self.cost,
            dtype=settings.dtype,
            whole=True,
            group=settings.group,
        )
        return Prepared(plan, engine, reason)


def open_package_model(source: Package | str | Path, *, allow_code: bool = False) -> Model:
    """Open the model of a package.

    Args:
        source: an open package, or anything that `open_package` takes.
        allow_code: whether Python code of the package may run.
    """
    package = source if isinstance(source, Package) else open_package(source)
    return Model(package, allow_code)


def _result(
    prepared: Prepared,
    counts: Counts,
    paths: Sequence[Path],
    seconds: float,
    resumed: int,
    request: Request,
    delivered: Delivered,
) -> PredictionResult:
    plan = prepared.plan
    return PredictionResult(
        tuple(paths),
        plan,
        seconds,
        counts.voxels,
        counts.tiles - resumed,
        resumed,
        counts.not_finite,
        peak_bytes(),
        sum(i.size * i.dtype.itemsize for i in request.images.values()),
        plan.output_bytes,
        prepared.reason,
        delivered.labels,
        delivered.objects,
        delivered.warnings,
    )


def _instances(plan: Plan, code: Code, maps: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    """Return the label image of maps, in memory."""
    if plan.grouping is None:
        raise ValueError("a plan without instance segmentation")
    labels = np.zeros(plan.grouping.shape, plan.grouping.dtype)
    sink = _ArraySink(labels, plan.grouping.axes)
    with tempfile.TemporaryDirectory() as folder:
        segment_instances(plan, code, maps, sink, Path(folder), executor=InProcess())
    result = xr.DataArray(labels, dims=plan.grouping.axes, name=INSTANCES, attrs=maps.attrs)
    result.attrs |= {"pixel_size_um": output_pixel_size(plan, LABEL_IMAGE, image)}
    result.attrs.pop("translation_um", None)
    if translation := output_translation(plan, LABEL_IMAGE, image):
        result.attrs["translation_um"] = translation
    if "channel" in plan.grouping.axes and "channel" in maps.coords:
        result = result.assign_coords(channel=maps["channel"].values)
    return result


@dataclass(slots=True)
class _ArraySink:
    """An output in memory; if its shape depends on the data, only the last block."""

    array: NDArray[Any]
    axes: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, number: int) -> "_ArraySink":
        target = plan.outputs[number]
        if target.image_shape is None and plan.samples > 1:
            raise PlanError(
                f"{plan.model}: the size of the output {target.id} depends on the data, so the outputs of {plan.samples} "
                "samples do not form one array; predict one sample at a time"
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
