"""Predict images that fit the memory: arrays in, arrays out. Nothing is kept beside an output, nothing is resumed."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError
from im2im_zoo.engines import Engine
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.package import Package
from im2im_zoo.runtime.execute.grouping import group_samples
from im2im_zoo.runtime.execute.outputs import (
    OF_LABELS,
    main_image,
    output_image,
    output_pixel_size,
    output_translation,
)
from im2im_zoo.runtime.execute.run import Progress, run_plan
from im2im_zoo.runtime.layout.mapping import images_by_input
from im2im_zoo.runtime.measure.select_engine import open_network
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.plan.planning import plan_prediction
from im2im_zoo.runtime.prepare import prepare
from im2im_zoo.runtime.settings import Halo, Settings


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
