"""Instances are of the image: their number and their voxels are those of the scene, however a prediction is cut, and by whom."""

import inspect
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zarr
from blocks_for_tests import in_blocks, sample_of
from groupings_for_tests import TINY
from scenes_for_tests import Known, known, passing_package, scene
from scipy import ndimage

from im2im_zoo.images import create_image
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.methods import components
from im2im_zoo.package import Package
from im2im_zoo.runtime import plan_prediction, predict_array
from im2im_zoo.runtime.execute.work_folder import work_folder

SHAPES = {2: (270, 530), 3: (36, 44, 70)}
# Those of which the serpent reaches over five along x, or four.
TILE = {2: {"y": 90, "x": 106}, 3: {"z": 14, "y": 16, "x": 20}}
# Of odd sides, which are none of the tiles'.
BLOCKS = {2: [(71, 113)], 3: [(13, 17, 29)]}


def too_little(package: Package, given: Known) -> int:
    """Memory in which the whole image is not grouped at once."""
    plan = plan_prediction(package, given.image, cost=TINY, memory=2**40)
    return plan.memory.of_grouping - 1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("method", ["components", "embedseg", "watershed", "any"])
def test_whole_or_in_tiles_of_any_size_or_in_blocks_they_are_those_of_the_scene(
    tmp_path: Path, method: str, ndim: int
) -> None:
    given = known(method, SHAPES[ndim])
    package = passing_package(tmp_path / "package", given)
    common = {"allow_code": True, "halo": 1}
    whole = predict_array(package, given.image, whole=True, allow_code=True)
    np.testing.assert_array_equal(whole, given.labels)
    for times in (1, 2, 3):
        tile = {a: min(times * n, given.image.sizes[a]) for a, n in TILE[ndim].items()}
        np.testing.assert_array_equal(predict_array(package, given.image, tile=tile, **common), whole)
    maps = predict_array(package, given.image, tile=TILE[ndim], group=False, **common).to_numpy()
    for block in BLOCKS[ndim]:
        sample = sample_of(maps, block, tmp_path / str(block), given.code, given.kwargs)
        labels, objects, warnings = in_blocks(sample)
        np.testing.assert_array_equal(labels, whole)
        assert (objects, warnings) == (given.labels.max(), [])


def large_scene() -> Known:
    """The scene five times as large, and specks, which may touch its objects."""
    inside = np.repeat(np.repeat(scene((1060, 1062)) > 0, 5, axis=0), 5, axis=1)
    inside[4::12, 5::13] = True
    labels, _ = ndimage.label(inside)
    return Known(inspect.getsource(components), {}, inside[None].astype(np.float32), labels)


SCRIPT = textwrap.dedent(
    """
    import json, os, signal, sys
    from im2im_zoo.runtime import predict
    from im2im_zoo.runtime.plan.memory import Cost

    arguments = json.loads(sys.argv[1])
    stop_after, seen = arguments.pop("stop_after"), 0

    def progress(stage, done, total):
        global seen
        seen += stage == "instances"
        if stop_after is not None and seen > stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        done = predict(**arguments, threads=1, progress=progress, cost=Cost(0, 0, 10.0))
        print(json.dumps({"objects": done.objects, "blocks": done.plan.grouping.block, "tiles": done.tiles}))
    """
)


@pytest.mark.slow
def test_of_odd_chunks_by_four_workers_or_one_and_after_kills_they_are_those_of_the_scene(
    tmp_path: Path,
) -> None:
    # So large that four blocks take less memory than the whole; more objects than 16 bits have numbers.
    given = large_scene()
    package, image = passing_package(tmp_path / "package", given), tmp_path / "image.ome.zarr"
    with create_image(
        image, axes=given.image.dims, shape=given.maps.shape, dtype="float32", chunks=(1, 531, 477)
    ) as writer:
        writer.write({}, given.maps)
    script, output = tmp_path / "script.py", tmp_path / "o.ome.zarr"
    script.write_text(SCRIPT)
    common = {
        "package": str(package.root),
        "image": str(image),
        "output": str(output),
        "tile": {"y": 611, "x": 607},
        "halo": 1,
        "weights": "torchscript",
        "memory": too_little(package, given),
    }

    def run(workers: int, stop_after: int | None) -> subprocess.CompletedProcess[str]:
        arguments = common | {"workers": workers, "stop_after": stop_after}
        return subprocess.run(
            [sys.executable, "-W", "ignore", str(script), json.dumps(arguments)],
            capture_output=True,
            text=True,
            check=False,
        )

    first = plan_prediction(package, given.image, cost=TINY, memory=common["memory"], workers=4).grouping
    assert first is not None
    assert first.block is not None
    blocks = len(BlockGrid(first.sizes, first.block))
    # In the middle of the first step, and of the last.
    for workers, after in ((4, blocks // 2), (1, blocks)):
        stopped = run(workers, after)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        assert not output.exists()
    done = run(4, None)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"objects": given.labels.max(), "blocks": list(first.block), "tiles": 0}
    assert given.labels.max() > 65_536
    levels = [zarr.open_array(output / "labels" / "instances" / str(n))[...] for n in range(3)]
    np.testing.assert_array_equal(levels[0], given.labels)
    np.testing.assert_array_equal(levels[1], levels[0][::2, ::2])
    np.testing.assert_array_equal(levels[2], levels[1][::2, ::2])
    assert not work_folder(output).exists()
