"""Predict: a package and an image to an output file, or to an array. Glue between reading, planning and running."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.engines import Engine, open_engine
from im2im_zoo.errors import ImageError, PackageError
from im2im_zoo.images import create_image, open_image, pixel_size_um
from im2im_zoo.package import Package, open_package, sha256
from im2im_zoo.runtime.cost import measure_cost, peak_bytes, restart_peak, return_large_blocks
from im2im_zoo.runtime.mapping import map_axes
from im2im_zoo.runtime.memory import Cost, default_budget
from im2im_zoo.runtime.plan import Plan
from im2im_zoo.runtime.planning import Halo, plan_prediction
from im2im_zoo.runtime.run import Figures, Progress, Scratch, run_plan


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """What a prediction did.

    Attributes:
        output: the image that was written.
        plan: what was run.
        seconds: of running the plan; reading, statistics and writing included, opening the network not.
        voxels: of the output, without channels.
        tiles: runs of the network.
        not_finite: values of the output that are NaN or infinite; more than 0 means that the model failed there.
        peak_bytes: the largest resident memory of the process while the plan ran.
        output_bytes: of the output, uncompressed.
    """

    output: Path
    plan: Plan
    seconds: float
    voxels: int
    tiles: int
    not_finite: int
    peak_bytes: int
    output_bytes: int

    @property
    def voxels_per_second(self) -> float:
        """Voxels of the output a second."""
        return self.voxels / max(self.seconds, 1e-9)


def open_network(
    package: Package,
    *,
    weights: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    allow_code: bool = False,
) -> Engine:
    """The network of a package, of one weight format (default: the first that can be run).

    Raises:
        PackageError: weights whose SHA-256 is not the RDF's; or see `engines.open_engine`.
    """
    chosen = weights or package.weights[0]
    entry = package.weights_entry(chosen)
    path = package.path(entry)
    # Damaged weights may well load, and give a wrong image.
    if path.is_file() and entry.sha256 is not None and sha256(path) != str(entry.sha256):
        raise PackageError(
            f"{package.source}: the file {entry.source} is not the one that the RDF describes (its SHA-256 differs): "
            "it was changed or damaged; download the package again"
        )
    return open_engine(
        chosen,
        path,
        architecture=getattr(entry, "architecture", None),
        root=package.root,
        allow_code=allow_code,
        device=device,
        threads=threads,
    )


def predict(
    package: Package | str | Path,
    image: xr.DataArray | str | Path,
    output: str | Path,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    halo: Halo = "declared",
    weights: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    allow_code: bool = False,
    overwrite: bool = False,
    dtype: str | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
    cost: Cost | None = None,
) -> PredictionResult:
    """Run a package on an image of any size and write the result.

    Args:
        package: an open package, or what `open_package` takes.
        image: a lazy image, or the path of one.
        output: path of the image to write; its suffix says the format.
        axes, channels: of the image's file, see `open_image`.
        memory: bytes that the process may take (default: half of what is available).
        tile, halo, weights, dtype: see `plan_prediction`.
        device, threads, allow_code: see `open_engine`; `allow_code` also lets `custom` operations run.
        overwrite: replace the output if it exists; otherwise that is an error.
        progress: called with the voxels done and the voxels of the image.
        engine, cost: of an earlier prediction with this package, so that many images pay for them once.

    Raises:
        PackageError, ImageError, AxesError, PlanError, ProcessingError: whatever cannot be; nothing is left at
            `output` then, nor after an interrupt.
    """
    path = Path(output)
    if path.exists() and not overwrite:
        raise ImageError(f"{path} exists; choose another output, or replace it with --overwrite")
    return_large_blocks()
    opened = package if isinstance(package, Package) else open_package(package)
    try:
        lazy = image if isinstance(image, xr.DataArray) else open_image(image, axes=axes, channels=channels)
        _keep_input(lazy, path)
        maps = map_axes(
            opened, lazy
        )  # before the weights are loaded: an image that does not fit costs nothing
        network = engine or open_network(
            opened, weights=weights, device=device, threads=threads, allow_code=allow_code
        )
        tensor_axes = [str(a.id) for a in opened.inputs[0].axes]
        budget = default_budget() if memory is None else memory
        plan = plan_prediction(
            opened,
            lazy,
            memory=budget,
            tile=tile,
            halo=halo,
            weights=network.weights_format,
            cost=cost or measure_cost(network, maps, tensor_axes, budget=budget),
            dtype=dtype,
        )
        return execute(
            plan, opened, network, lazy, path, overwrite=overwrite, allow_code=allow_code, progress=progress
        )
    finally:
        if opened is not package:
            opened.close()


def _keep_input(image: xr.DataArray, output: Path) -> None:
    """Refuse to replace what the prediction is made from."""
    source = Path(str(image.attrs.get("source", "")))
    if output.exists() and source.exists() and source.resolve().is_relative_to(output.resolve()):
        raise ImageError(f"{output} is the input, which would be lost; choose another output")


def execute(
    plan: Plan,
    package: Package,
    engine: Engine,
    image: xr.DataArray,
    output: Path,
    *,
    overwrite: bool = False,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> PredictionResult:
    """Run a plan and write the output image; see `predict`."""
    scratch_path = output.with_name(f".{output.name}.scratch.zarr")
    restart_peak()
    start = time.perf_counter()
    try:
        with create_image(
            output,
            axes=plan.image_axes,
            shape=plan.image_shape,
            dtype=plan.dtype,
            pixel_size_um=_pixel_size(plan, image),
            channel_names=plan.channel_names,
            time_step_s=image.attrs.get("time_step_s") if "time" in plan.image_axes else None,
            chunks=_chunks(plan),
            attributes=_provenance(plan, package),
            labels=_are_labels(plan, package),
            overwrite=overwrite,
        ) as writer:
            figures = run_plan(
                plan,
                package,
                engine,
                image,
                writer,
                scratch=lambda shape: _zarr_scratch(scratch_path, plan, shape),
                allow_code=allow_code,
                progress=progress,
            )
    finally:
        shutil.rmtree(scratch_path, ignore_errors=True)
    return _result(plan, figures, output, time.perf_counter() - start)


def predict_array(
    package: Package,
    image: xr.DataArray,
    *,
    engine: Engine | None = None,
    cost: Cost | None = None,
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    halo: Halo = "declared",
    weights: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    allow_code: bool = False,
    dtype: str | None = None,
    whole: bool = False,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Run a package on an image and return the result in memory.

    Args:
        whole: run each sample as one tile: what every tiling has to give.
        engine: an open network of this package (default: it is opened).
        cost: of the network (default: not measured, a guess).

    The other arguments are those of `predict`, which also says what is raised.
    """
    network = engine or open_network(
        package, weights=weights, device=device, threads=threads, allow_code=allow_code
    )
    plan = plan_prediction(
        package,
        image,
        memory=memory,
        tile=tile,
        halo=halo,
        weights=network.weights_format,
        cost=cost,
        dtype=dtype,
        whole=whole,
    )
    sink = _ArraySink(np.empty(plan.image_shape, plan.dtype), plan.image_axes)
    run_plan(plan, package, network, image, sink, allow_code=allow_code, progress=progress)
    coords = {"channel": list(plan.channel_names)} if plan.channel_names else {}
    result = xr.DataArray(sink.array, dims=plan.image_axes, coords=coords)
    result.attrs["pixel_size_um"] = _pixel_size(plan, image)
    if "time" in plan.image_axes and "time_step_s" in image.attrs:
        result.attrs["time_step_s"] = image.attrs["time_step_s"]
    return result


@dataclass(frozen=True, slots=True)
class _ArraySink:
    array: NDArray[Any]
    axes: tuple[str, ...]

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        self.array[tuple(region[a] for a in self.axes)] = block


def _zarr_scratch(path: Path, plan: Plan, shape: tuple[int, ...]) -> Scratch:
    import zarr

    chunks = dict(zip(plan.image_axes, _chunks(plan), strict=True))
    dims = [a for a in plan.output_axes if a != "batch"]
    return zarr.create_array(
        store=str(path),
        shape=shape,
        chunks=tuple(min(chunks.get(a, n), n) for a, n in zip(dims, shape, strict=True)),
        dtype="float32",
        compressors=None,
        overwrite=True,
    )


def _chunks(plan: Plan) -> tuple[int, ...]:
    """Chunks of the output that no two tiles share: they divide the cuts."""
    scales = {m.name: m.scale for m in plan.maps_of("tile")}
    cuts = {a.name: (int(a.cut * scales[a.name]), len(a.spans), a.cut) for a in plan.axes}
    space = sum(1 for a in cuts if a in plan.image_axes)
    usual = 1024 if space <= 2 else 128
    chunks = []
    for axis, size in zip(plan.image_axes, plan.image_shape, strict=True):
        if axis not in cuts:
            chunks.append(1)
            continue
        cut, count, _ = cuts[axis]
        chunks.append(min(size, usual if count == 1 else _divisor(cut, usual)))
    return tuple(chunks)


def _divisor(cut: int, most: int) -> int:
    """The largest divisor of `cut` that is no more than `most`, if it is not tiny; else `cut` itself."""
    best = max(d for d in range(1, min(cut, most) + 1) if cut % d == 0)
    return best if best >= min(cut, most) // 8 else cut


def _pixel_size(plan: Plan, image: xr.DataArray) -> dict[str, float]:
    scales = {m.name: float(m.scale) for m in plan.maps_of("tile")}
    sizes = pixel_size_um(image)
    return {a: size / scales.get(a, 1.0) for a, size in sizes.items() if a in plan.image_axes}


def _are_labels(plan: Plan, package: Package) -> bool:
    """Whether the output's integers are names of objects or classes, which must not be averaged in a pyramid."""
    named = hasattr(package.outputs[0].data, "values")  # nominal or ordinal data, in the spec's words
    dtype = np.dtype(plan.dtype)
    return dtype.kind in "iu" and (named or dtype.itemsize >= 4)


def _provenance(plan: Plan, package: Package) -> dict[str, Any]:
    from importlib.metadata import version

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


def _result(plan: Plan, figures: Figures, output: Path, seconds: float) -> PredictionResult:
    size = math.prod(plan.image_shape) * np.dtype(plan.dtype).itemsize
    return PredictionResult(
        output, plan, seconds, figures.voxels, figures.tiles, figures.not_finite, peak_bytes(), size
    )
