"""One prediction by one system in a process of its own: `python benchmarks/systems.py JSON`. It prints its figures as JSON.

Times are of the work from opening the model and the image to the written output; importing libraries is not counted. The
ideal cover and the tiles alone are nothing but calls of the network, on voxels that are in memory.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, HALO, QUICK, Case, network_of, normalised, read_json, write_case
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does.

    Attributes:
        action: a key of `ACTIONS`.
        case: of `cases`; `quick` its small version.
        folder: of the case.
        output: file to write.
        side: of blocks, windows or tiles along y and x.
        threads: of the network (default: as each library chooses).
    """

    action: str
    case: str
    quick: bool
    folder: str
    output: str = ""
    side: int = 0
    threads: int | None = None
    compared: str = ""

    @property
    def of(self) -> Case:
        return (QUICK if self.quick else CASES)[self.case]

    @property
    def root(self) -> Path:
        return Path(self.folder)


@dataclass(slots=True)
class Clock:
    """Wall and CPU seconds of a block of code."""

    figures: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.figures.update(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def make(job: Job) -> dict[str, Any]:
    """Write the case: image, weights, package."""
    write_case(job.of, job.root)
    return {}


def exact(job: Job) -> dict[str, Any]:
    """The exact result of the image's corner: the network run once over it and all that reaches it."""
    import tifffile
    import torch

    case = job.of
    values = normalised(tifffile.imread(job.root / "image.tif"))
    end = [min(n, case.region + HALO) for n in case.shape[-2:]]
    part = np.ascontiguousarray(values[..., : end[0], : end[1]])
    with torch.inference_mode():
        found = network_of(case, job.root / "weights.pth")(torch.from_numpy(part)[None, None])
    np.save(job.output, found.numpy()[0, 0][..., : case.region, : case.region])
    return {}


def compare(job: Job) -> dict[str, Any]:
    """The largest difference of an output from the exact result, in its standard deviations, and that far from the border.

    At the image's border a network pads with zeros; who pads the image before, by mirroring it, gives something else there.
    """
    expected = np.load(job.root / "exact.npy")
    path = Path(job.compared)
    side = job.of.region
    if path.suffix == ".npy":
        found = np.load(path, mmap_mode="r")
    elif path.suffix == ".tif":
        import tifffile

        found = tifffile.imread(path).squeeze()
    else:
        from im2im_zoo.images import open_image

        image = open_image(path)
        found = image.isel(y=slice(side), x=slice(side)).squeeze().to_numpy()
    difference = np.abs(found[..., :side, :side] - expected) / expected.std()
    inside = difference[..., HALO:, HALO:]
    return {"error_std": float(difference.max()), "inside_error_std": float(inside.max())}


def im2im_zoo(job: Job) -> dict[str, Any]:
    """Predict from OME-Zarr to OME-Zarr within the case's memory, everything chosen by default."""
    import onnxruntime  # noqa: F401 imports are not counted
    import openvino  # noqa: F401
    import torch  # noqa: F401
    import zarr  # noqa: F401

    from im2im_zoo.runtime import predict

    clock = Clock()
    with clock.running():
        result = predict(
            job.root / "package",
            job.root / "image.ome.zarr",
            job.output,
            memory=job.of.memory,
            threads=job.threads,
            overwrite=True,
        )
    plan = result.plan
    chosen = {
        "weights": plan.weights_format,
        "backend": plan.backend,
        "precision": plan.precision,
        "tile": {a.name: a.tile for a in plan.axes},
        "halo": {a.name: a.halo for a in plan.axes},
        "tiles": len(plan),
        "budget_bytes": plan.budget,
        "projected_bytes": plan.memory.total,
    }
    (job.root / "chosen.json").write_text(json.dumps(chosen))
    return {
        **clock.figures,
        "running_s": result.seconds,
        "plan_peak_bytes": result.peak_bytes,
        "chosen": chosen,
    }


def tiles_alone(job: Job) -> dict[str, Any]:
    """The network that im2im_zoo chose, over tiles of the size and number that it chose: calls alone."""
    chosen = read_json(job.root / "chosen.json")
    engine = _engine(job, chosen)
    shape = (1, 1, *(chosen["tile"][a] for a in job.of.axes))
    tile = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    engine([tile])
    clock = Clock()
    with clock.running():
        for _ in range(chosen["tiles"]):
            engine([tile])
    return clock.figures


def ideal(job: Job) -> dict[str, Any]:
    """The network that im2im_zoo chose, once over each voxel, in tiles of one size without overlap."""
    import tifffile

    case = job.of
    engine = _engine(job, read_json(job.root / "chosen.json"))
    values = normalised(tifffile.imread(job.root / "image.tif"))[None, None]
    result = np.empty_like(values)
    tile = case.tile(job.side)
    engine([np.ascontiguousarray(values[(..., *(slice(n) for n in tile))])])
    starts = product(*(range(0, n, t) for n, t in zip(case.shape, tile, strict=True)))
    clock = Clock()
    with clock.running():
        for start in starts:
            region = (..., *(slice(s, s + t) for s, t in zip(start, tile, strict=True)))
            result[region] = engine([np.ascontiguousarray(values[region])])[0]
    np.save(job.output, result[0, 0])
    return clock.figures


def tune(job: Job) -> dict[str, Any]:
    """Seconds a voxel of the network that im2im_zoo chose, on a tile of one size: the better of two calls after a first."""
    engine = _engine(job, read_json(job.root / "chosen.json"))
    tile = np.random.default_rng(0).standard_normal((1, 1, *job.of.tile(job.side)), dtype=np.float32)
    engine([tile])
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        engine([tile])
        seconds.append(time.perf_counter() - start)
    return {"s_per_voxel": min(seconds) / tile.size}


def bioimageio_core(job: Job) -> dict[str, Any]:
    """bioimageio.core in blocks, TIFF to TIFF, the weights that it prefers."""
    import bioimageio.core
    import onnxruntime  # noqa: F401 imports are not counted
    import tifffile  # noqa: F401
    import torch

    _torch_threads(torch, job)
    case = job.of
    block = {"batch": 1, "channel": 1, **dict(zip(case.axes, case.tile(job.side), strict=True))}
    clock = Clock()
    with clock.running():
        bioimageio.core.predict(
            model=job.root / "package" / "rdf.yaml",
            inputs={"raw": job.root / "image.tif"},
            input_block_shape={"raw": block},
            save_output_path=job.output,
        )
    return clock.figures


def monai(job: Job) -> dict[str, Any]:
    """MONAI's sliding window, a quarter of overlap and Gaussian weights, TIFF to TIFF."""
    import tifffile
    import torch
    from monai.inferers import sliding_window_inference

    _torch_threads(torch, job)
    case = job.of
    clock = Clock()
    with clock.running(), torch.inference_mode():
        network = network_of(case, job.root / "weights.pth")
        values = torch.from_numpy(normalised(tifffile.imread(job.root / "image.tif")))[None, None]
        found = sliding_window_inference(
            values, case.tile(job.side), 1, network, overlap=0.25, mode="gaussian"
        )
        tifffile.imwrite(job.output, found.numpy()[0, 0])
    return clock.figures


ACTIONS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "make": make,
    "exact": exact,
    "compare": compare,
    "im2im_zoo": im2im_zoo,
    "tiles_alone": tiles_alone,
    "ideal": ideal,
    "tune": tune,
    "bioimageio.core": bioimageio_core,
    "MONAI": monai,
}


def _engine(job: Job, chosen: dict[str, Any]) -> Callable[[list[NDArray[Any]]], list[NDArray[Any]]]:
    from im2im_zoo import open_package
    from im2im_zoo.runtime import open_network

    opened = open_network(
        open_package(job.root / "package"),
        weights=chosen["weights"],
        backend=chosen["backend"],
        precision=chosen["precision"],
        threads=job.threads,
        measure=False,
    )
    return opened.engine


def _torch_threads(torch: Any, job: Job) -> None:
    if job.threads is not None:
        torch.set_num_threads(job.threads)


def main() -> None:
    """Do the job that the first argument describes."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    job = Job(**json.loads(sys.argv[1]))
    figures = ACTIONS[job.action](job)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
