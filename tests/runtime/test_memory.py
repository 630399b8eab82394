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

from im2im_zoo.images import write_image
from im2im_zoo.runtime.measure.cost import peak_of, resident_bytes
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
        ("onnx", "onnxruntime", 600 * MIB),
        ("torchscript", "torch", 1000 * MIB),
        ("onnx", "openvino", 700 * MIB),
    ],
)
def test_the_peak_stays_below_the_projection_and_the_budget(
    unet_2d, large, tmp_path, weights, backend, memory
):
    if backend == "openvino":
        pytest.importorskip("openvino")
    found = measured(unet_2d.root, large, tmp_path / "result.ome.zarr", memory, weights, backend)
    assert found["peak"] <= found["total"] <= memory
    assert found["tiles"] > 1
    # Not by promising the moon: at least a third of what was projected is used.
    assert found["peak"] > found["total"] / 3


@pytest.mark.slow
def test_an_image_16_times_larger_takes_hardly_more_memory(nuclei_2d, tmp_path):
    """Of a network that takes little, so that what the rest takes stands out; in the same tiles. Measured: 1.05 to 1.07 times.

    The peak is where reading, computing and writing happen to take most at once, so three runs stand for the smaller image.
    """
    small = small_unet(levels=1, width=1)
    package = build_package(tmp_path / "package", small, weights=("onnx",), preprocessing=[NORMALISE_2D])
    found = {}
    for times, runs in ((6, 3), (24, 1)):
        image = repeated(nuclei_2d[0], times, tmp_path / f"{times}.ome.zarr")
        outputs = [tmp_path / f"{times}_{run}.ome.zarr" for run in range(runs)]
        found[times] = [
            measured(package, image, output, 700 * MIB, "onnx", "onnxruntime", 768) for output in outputs
        ]
    peaks, totals = (
        {t: max(f[what] for f in runs) for t, runs in found.items()} for what in ("peak", "total")
    )
    assert peaks[24] < 1.1 * peaks[6], found
    assert totals[24] < 1.01 * totals[6], found


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
