"""The promise of the plan: the real peak of the process stays below what was projected."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from operations_for_tests import NORMALISE_2D
from packages_for_tests import build_package, small_unet

from im2im_zoo.engines import backends
from im2im_zoo.images import write_image
from im2im_zoo.runtime import plan_prediction
from im2im_zoo.runtime.measure.cost import peak_of, resident_bytes
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.predictor import Model
from im2im_zoo.runtime.settings import Resources, Settings

MIB = 1024**2

# A fresh process, so that the peak is of this prediction alone.
SCRIPT = textwrap.dedent(
    """
    import json, sys
    from im2im_zoo.runtime import predict
    package, image, output, memory, weights, backend, tile = sys.argv[1:]
    result = predict(
        package, image, output, memory=int(memory), weights=weights, backend=backend, threads=1, halo="declared",
        tile={"y": int(tile), "x": int(tile)} if tile != "None" else None,
    )
    plan = result.plan
    print(json.dumps({"peak": result.peak_bytes, "tiles": result.tiles, **plan.memory.to_json()}))
    """
)


def measured(
    package: Path, image: Path, output: Path, memory: int, weights: str, backend: str, tile: int | None = None
) -> dict[str, int]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        SCRIPT,
        *map(str, (package, image, output, memory, weights, backend, tile)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def repeated(nuclei: NDArray[np.uint16], times: int, path: Path) -> Path:
    """Real nuclei, side by side."""
    return write_image(xr.DataArray(np.tile(nuclei, (times, times)), dims=("y", "x")), path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, nuclei_2d) -> Path:
    """16 megapixels."""
    return repeated(nuclei_2d[0], 8, tmp_path_factory.mktemp("large") / "large.ome.zarr")


@pytest.mark.parametrize(
    ("weights", "backend", "memory"),
    [
        ("onnx", "onnxruntime", 640 * MIB),
        ("torchscript", "torch", 1000 * MIB),
        ("onnx", "openvino", 800 * MIB),
    ],
)
def test_the_peak_stays_below_the_projection_and_the_budget(
    unet_2d, large, tmp_path, weights, backend, memory
):
    if backend not in backends(weights):
        pytest.skip(f"{backend} is not installed")
    found = measured(unet_2d.root, large, tmp_path / "result.ome.zarr", memory, weights, backend)
    assert found["peak"] <= found["total"] <= memory
    assert found["tiles"] > 1
    # Not by promising the moon: at least a third of what was projected is used.
    assert found["peak"] > found["total"] / 3


def test_what_is_projected_does_not_grow_with_the_image(unet_2d):
    cost = Cost(process=500 * MIB, call=20 * MIB, per_voxel=100.0)
    small, large = (
        plan_prediction(
            unet_2d,
            xr.DataArray(np.broadcast_to(np.uint16(0), (size, size)), dims=("y", "x")),
            cost=cost,
            tile={"y": 768, "x": 768},
            halo=16,
            memory=2048 * MIB,
        )
        for size in (6 * 512, 24 * 512)
    )
    assert large.memory == small.memory
    assert len(large) > 10 * len(small)


@pytest.mark.slow
def test_an_image_16_times_larger_takes_hardly_more_memory(nuclei_2d, tmp_path):
    """Of a network that takes little, so that what the rest takes stands out; in the same tiles. Measured: 1.05 to 1.07 times.

    The peak is where reading, computing and writing happen to take most at once, the more so on a busy machine: a size stands for
    itself with the least of its peaks, of up to three.
    """
    small = small_unet(levels=1, width=1)
    package = build_package(tmp_path / "package", small, weights=("onnx",), preprocessing=[NORMALISE_2D])
    images = {t: repeated(nuclei_2d[0], t, tmp_path / f"{t}.ome.zarr") for t in (6, 24)}
    peaks: dict[int, list[int]] = {6: [], 24: []}
    for attempt in range(3):
        for times, image in images.items():
            output = tmp_path / f"{times}_{attempt}.ome.zarr"
            found = measured(package, image, output, 1024 * MIB, "onnx", "onnxruntime", 768)
            peaks[times].append(found["peak"])
        if min(peaks[24]) < 1.1 * min(peaks[6]):
            break
    assert min(peaks[24]) < 1.1 * min(peaks[6]), peaks


# What Python and numpy hold after each fourth tile, and nothing of what libraries below them do: this hangs on no chance.
HELD_SCRIPT = textwrap.dedent(
    """
    import gc, json, sys, tracemalloc
    from im2im_zoo.runtime import predict
    package, image, output, tile = sys.argv[1:]
    held, seen = [], 0

    def progress(stage, done, total):
        global seen
        seen += stage == "tiles"
        if stage == "tiles" and seen % 4 == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    predict(
        package, image, output, memory=2**31, weights="onnx", backend="onnxruntime", threads=1, halo="declared",
        tile={"y": int(tile), "x": int(tile)}, progress=progress,
    )
    print(json.dumps(held))
    """
)


@pytest.mark.slow
def test_what_is_held_does_not_grow_with_the_tiles_that_are_done(nuclei_2d, tmp_path):
    """A tile of float32 that is kept of every twentieth would be six and a half more in the last third than in the first.

    Tiles that are written in the background come and go, so that the least of a third counts. Measured: 0.7 tiles less.
    """
    small, tile = small_unet(levels=1, width=1), 256
    package = build_package(tmp_path / "package", small, weights=("onnx",), preprocessing=[NORMALISE_2D])
    image = repeated(nuclei_2d[0], 6, tmp_path / "image.ome.zarr")
    arguments = map(str, (package, image, tmp_path / "result.ome.zarr", tile))
    command = [sys.executable, "-W", "ignore", "-c", HELD_SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout.splitlines()[-1])
    third = len(held) // 3
    assert third >= 16
    grown = min(held[-third:]) - min(held[:third])
    assert grown < 2 * 4 * tile**2, held


class Hungry:
    """A network that takes 16 times the memory for each voxel of a tile above a million, as libraries do that change their way."""

    weights_format, backend, precision, device = "onnx", "none", "float32", "cpu"

    def __call__(self, inputs: Sequence[NDArray[np.float32] | None]) -> list[NDArray[np.float32]]:
        (array,) = inputs
        assert array is not None
        copies = 64 if array.size > 2**20 else 4
        held = np.ones(copies * array.size, np.float32)
        return [array * held[0]]


def test_a_tile_far_larger_than_was_measured_is_measured_before_it_is_planned(unet_2d, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = {"raw": xr.DataArray(np.zeros((4096, 4096), np.uint16), dims=("y", "x"))}
    memory = resident_bytes() + 1792 * MIB
    for _ in ("measured", "from the cache"):
        plan = Model(unet_2d, engine=Hungry()).plan(
            image["raw"], settings=Settings(halo="declared"), resources=Resources(memory=memory)
        )
        assert plan.tile_voxels > 2**20
        assert plan.cost.voxels * 8 >= plan.tile_voxels
        assert plan.memory.network > 64 * 4 * plan.tile_voxels
        assert plan.memory.total <= memory


def test_the_peak_of_a_call_is_seen_even_if_the_memory_is_given_back():
    def call() -> None:
        block = np.ones(100 * MIB, np.uint8)
        del block

    assert 95 * MIB < peak_of(call) < 130 * MIB


def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    ballast = np.ones(400 * MIB, np.uint8)
    script = "from im2im_zoo.runtime.measure.cost import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < ballast.nbytes
