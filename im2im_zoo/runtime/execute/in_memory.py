"""Predictions in memory: run a plan in this process and return its outputs as arrays."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES, AnyGrouping
from im2im_zoo.package import Package
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.execute.instances import segment_instances
from im2im_zoo.runtime.execute.outputs import LABEL_IMAGE, main_image, output_pixel_size, output_translation
from im2im_zoo.runtime.execute.tile_stages import Progress, run_plan
from im2im_zoo.runtime.layout.fixed_sizes import restrict_to_shapes
from im2im_zoo.runtime.layout.mapping import map_axes
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.plan.planning import plan_prediction
from im2im_zoo.runtime.prepare import Networks, Prepared
from im2im_zoo.runtime.settings import Resources, Settings


def prepare_whole(
    networks: Networks,
    images: Mapping[str, xr.DataArray],
    settings: Settings,
    resources: Resources,
    grouping: AnyGrouping | None = None,
) -> Prepared:
    """Open the network and plan one tile per sample, whatever memory it takes."""
    engine, reason = networks.open(settings, resources)
    layout = map_axes(networks.package, images)
    plan = plan_prediction(
        networks.package,
        images,
        layout=restrict_to_shapes(layout, getattr(engine, "input_shapes", None)),
        weights=engine.weights_format,
        backend=engine.backend,
        precision=engine.precision,
        cost=networks.cost,
        dtype=settings.dtype,
        whole=True,
        group=settings.group,
        grouping=grouping,
    )
    return Prepared(plan, engine, reason)


def run_in_memory(
    prepared: Prepared,
    package: Package,
    images: Mapping[str, xr.DataArray],
    code: Code | None = None,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, xr.DataArray]:
    """Run a plan and return its outputs by id, with the labels of `code` as `instances`.

    Raises:
        PlanError: an output whose size depends on the data, of several samples.
        PackageError, ProcessingError, ImageError: see `run_plan`.
    """
    plan, main = prepared.plan, main_image(prepared.plan, images)
    sinks = [_ArraySink.of(plan, n) for n in range(len(plan.outputs))]
    run_plan(plan, package, prepared.engine, images, sinks, allow_code=allow_code, progress=progress)
    results = {o.id: sinks[n].image(plan, n, main) for n, o in enumerate(plan.outputs)}
    if code is not None:
        results[INSTANCES] = _instances(plan, code, next(iter(results.values())), main)
    return results


def _instances(plan: Plan, code: Code, maps: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    """Return the label image of maps, in memory."""
    if plan.grouping is None:
        raise ValueError("a plan without instance segmentation")
    labels = np.zeros(plan.grouping.shape, plan.grouping.dtype)
    sink = _ArraySink(labels, plan.grouping.axes)
    with tempfile.TemporaryDirectory() as folder:
        segment_instances(plan, code, maps, sink, Path(folder), executor=InProcess())
    coords = {a: maps[a].values for a in plan.grouping.axes if a == "channel" and a in maps.coords}
    result = xr.DataArray(labels, dims=plan.grouping.axes, coords=coords, name=INSTANCES)
    return _with_sizes(result, plan, LABEL_IMAGE, image)


def _with_sizes(result: xr.DataArray, plan: Plan, number: int, image: xr.DataArray) -> xr.DataArray:
    """Add the pixel size, position and time step of an output (or of `LABEL_IMAGE`), as a written one has them."""
    result.attrs["pixel_size_um"] = output_pixel_size(plan, number, image)
    if translation := output_translation(plan, number, image):
        result.attrs["translation_um"] = translation
    if "time" in result.dims and "time_step_s" in image.attrs:
        result.attrs["time_step_s"] = image.attrs["time_step_s"]
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
        if not target.image_shape:
            return xr.DataArray(self.array, dims=[a for a in target.axes if a != "batch"], name=target.id)
        coords = {"channel": list(target.channel_names)} if target.channel_names else {}
        result = xr.DataArray(self.array, dims=self.axes, coords=coords, name=target.id)
        return _with_sizes(result, plan, number, main)
