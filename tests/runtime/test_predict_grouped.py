"""Packages with grouping: the maps, in tiles, and then the labels, of the whole image."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from groupings_for_tests import COLUMNS, COMPONENTS, maps_package, with_grouping
from scipy import ndimage
from test_resume import bytes_of, run

from im2im_zoo.errors import ImageError, PackageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import plan_prediction, predict, predict_array, predict_arrays
from im2im_zoo.runtime.memory import Cost
from im2im_zoo.runtime.resume import unfinished, work_folder

MIB = 1024**2
TILE = {"y": 60, "x": 60}
COST = Cost(300 * MIB, 10 * MIB, 100.0)
Make = Callable[..., Package]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maps_package(tmp_path_factory.mktemp("maps") / "package")


@pytest.fixture
def make(plain: Path, tmp_path: Path) -> Make:
    """A copy of the package with a grouping; arguments as `with_grouping`."""

    def made(**arguments: Any) -> Package:
        return with_grouping(Path(shutil.copytree(plain, tmp_path / "package")), **arguments)

    return made


@pytest.fixture
def image(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    return xr.DataArray(
        nuclei_2d[0][:130, :150], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}}
    )


@pytest.fixture
def movie(image: xr.DataArray) -> xr.DataArray:
    return xr.concat([image, image.isel(y=slice(None, None, -1)), image // 3], dim="time")


def expected(package: Package, image: xr.DataArray) -> np.ndarray:
    """By the maps and scipy."""
    maps = predict_array(package, image, group=False, whole=True)
    found, count = ndimage.label(maps.sel(channel="inside").to_numpy() > -0.58)
    kept = ndimage.sum_labels(found > 0, found, np.arange(count + 1)) >= 3
    return np.where(kept, np.cumsum(kept), 0)[found]


@pytest.mark.parametrize("inner", ["o.ome.zarr", "o.ome.tif", "o.npy"])
def test_labels_are_of_the_whole_image_whatever_the_tiles(
    make: Make, image: xr.DataArray, tmp_path: Path, inner: str
) -> None:
    package = make()
    done = predict(package, image, tmp_path / inner, tile=TILE, halo=8)
    assert done.labels is not None
    labels = open_image(done.labels, axes="yx" if inner.endswith("npy") else None)
    wanted = expected(package, image)
    np.testing.assert_array_equal(labels, wanted)
    assert wanted.max() > 5
    assert (labels.dtype, done.objects) == (np.uint32, wanted.max())
    assert not work_folder(tmp_path / inner).exists()


def test_an_ome_zarr_has_the_maps_and_within_it_the_labels_with_their_origin(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make()
    done = predict(package, image, tmp_path / "o.ome.zarr")
    assert done.labels == tmp_path / "o.ome.zarr/labels/instances"
    assert done.outputs == (tmp_path / "o.ome.zarr",)
    maps, labels = open_image(done.output), open_image(done.labels)
    np.testing.assert_array_equal(maps, predict_array(package, image, group=False))
    assert labels.attrs["pixel_size_um"] == {"y": 0.5, "x": 0.5}
    origin = labels.attrs["im2im_zoo"]
    assert origin["grouping"]["sha256"] == package.grouping.sha256  # type: ignore[union-attr]
    assert origin["grouping"]["kwargs"] == {"channel": 1, "threshold": -0.58, "min_size": 3}
    assert {"model", "weights_sha256", "plan"} <= set(origin)
    listed = json.loads((tmp_path / "o.ome.zarr/labels/zarr.json").read_text())
    assert listed["attributes"]["ome"]["labels"] == ["instances"]


def test_an_ome_zarr_says_no_more_of_the_maps_than_one_that_is_not_grouped(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make()
    one, two = tmp_path / "a" / "o.ome.zarr", tmp_path / "b" / "o.ome.zarr"
    for path, group in ((one, True), (two, False)):
        path.parent.mkdir()
        predict(package, image, path, group=group)
    assert not (two / "labels").exists()
    shutil.rmtree(one / "labels")
    assert bytes_of(one) == bytes_of(two)


def test_labels_go_into_the_ome_zarr_of_the_image(make: Make, image: xr.DataArray, tmp_path: Path) -> None:
    source = write_image(image, tmp_path / "image.ome.zarr", ome_zarr_version="0.4")
    package = make()
    with pytest.raises(ImageError, match=r"OME-Zarr 0\.4"):
        predict(package, source, source / "labels" / "nuclei", ome_zarr_version="0.5")
    done = predict(package, source, source / "labels" / "nuclei")
    assert done.labels == source / "labels" / "nuclei"
    np.testing.assert_array_equal(open_image(done.labels), expected(package, image))
    np.testing.assert_array_equal(open_image(source), image)


def test_each_time_point_is_grouped_apart(make: Make, movie: xr.DataArray, tmp_path: Path) -> None:
    package = make()
    done = predict(package, movie, tmp_path / "o.ome.zarr", tile=TILE, halo=8, ome_zarr_version="0.4")
    labels = open_image(tmp_path / "o.ome.zarr/labels/instances")
    frames = [expected(package, frame) for frame in movie]
    np.testing.assert_array_equal(labels, np.stack(frames))
    assert done.objects == sum(int(f.max()) for f in frames)
    np.testing.assert_array_equal(predict_array(package, movie), np.stack(frames))


def test_planes_of_a_stack_are_grouped_apart_by_a_model_for_planes(make: Make, image: xr.DataArray) -> None:
    package = make(code=COLUMNS, name="columns.py", kwargs={})
    stack = xr.concat([image, image], dim="z")
    labels = predict_array(package, stack, allow_code=True)
    assert labels.dims == ("z", "y", "x")
    assert (labels == np.arange(1, 151)).all()


def test_volumes_are_grouped_as_volumes(tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray]) -> None:
    package = with_grouping(maps_package(tmp_path / "p", ndim=3))
    volume = xr.DataArray(nuclei_3d[0][:24, :50, :60], dims=("z", "y", "x"))
    done = predict(package, volume, tmp_path / "o.ome.tif", tile={"z": 24, "y": 30, "x": 30}, halo=8)
    np.testing.assert_array_equal(open_image(done.output), expected(package, volume))


def test_in_memory_the_labels_are_beside_the_maps(make: Make, image: xr.DataArray) -> None:
    package = make()
    results = predict_arrays(package, image)
    assert list(results) == ["out", "instances"]
    np.testing.assert_array_equal(results["instances"], expected(package, image))
    np.testing.assert_array_equal(predict_array(package, image), results["instances"])
    maps = predict_array(package, image, group=False)
    assert maps.name == "out"
    np.testing.assert_array_equal(maps, results["out"])
    assert list(predict_arrays(package, image, group=False)) == ["out"]


def test_at_the_models_pixel_size_it_is_grouped_and_then_put_back(
    tmp_path: Path, image: xr.DataArray
) -> None:
    # The model's pixels are twice as large as the image's.
    path = maps_package(tmp_path / "p", pixel_size_um=1.0)
    package = with_grouping(path, code=COLUMNS, name="columns.py", kwargs={})
    for name in ("o.ome.zarr", "o.tif"):
        done = predict(package, image, tmp_path / name, rescale=True, allow_code=True)
        labels = open_image(done.labels)  # type: ignore[arg-type]
        assert labels.shape == image.shape
        np.testing.assert_array_equal(np.unique(labels), np.arange(1, 76))
        assert not work_folder(tmp_path / name).exists()
    assert open_image(tmp_path / "o.ome.zarr").sizes == {"channel": 2, "y": 130, "x": 150}


def test_the_type_of_the_labels_is_chosen_and_holds_them(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make(code=COLUMNS, name="columns.py", kwargs={"gain": 2})
    options: dict[str, Any] = {"allow_code": True}
    done = predict(package, image, tmp_path / "o.ome.zarr", dtype="uint16", **options)
    assert open_image(done.labels).dtype == np.uint16  # type: ignore[arg-type]
    assert open_image(done.output).dtype == np.float32
    with pytest.raises(PlanError, match="float32 is no type of labels"):
        predict(package, image, tmp_path / "p.tif", dtype="float32", **options)
    assert not work_folder(tmp_path / "p.tif").exists()
    # However the method numbers them, they are 150.
    assert done.objects == 150
    with pytest.raises(PlanError, match="150 objects, more than int8"):
        predict(package, image, tmp_path / "p.tif", dtype="int8", **options)
    assert not (tmp_path / "p.tif").exists()


# Plan and memory


def test_the_plan_says_how_it_is_grouped_and_what_memory_that_takes(make: Make, movie: xr.DataArray) -> None:
    package = make()
    plan = plan_prediction(package, movie, cost=COST)
    assert (
        "components.py groups it, the whole image at once, 3 times: group(channel=1, threshold=-0.58, min_size=3)"
        in str(plan)
    )
    assert "labels instances: time 3, y 130, x 150, uint32; this step takes" in str(plan)
    assert plan.to_json()["grouping"]["labels"] == "instances"
    # At least the maps and labels of one time point.
    assert plan.memory.grouping >= 130 * 150 * (2 * 4 + 4)
    without = plan_prediction(package, movie, cost=COST, group=False)
    assert without.grouping is None
    assert "group" not in str(without)


def test_maps_that_do_not_fit_the_memory_are_grouped_in_blocks_that_do(make: Make) -> None:
    package = make()
    large = xr.DataArray(np.broadcast_to(np.uint8(0), (8000, 8000)), dims=("y", "x"))
    whole = plan_prediction(package, large, cost=COST, memory=2**40)
    assert whole.grouping is not None
    assert whole.grouping.block is None
    blocks = []
    for memory in (whole.memory.of_grouping - 1, whole.memory.of_grouping // 2, 900 * MIB, 660 * MIB):
        plan = plan_prediction(package, large, cost=COST, memory=memory)
        assert plan.memory.total <= memory
        assert plan.grouping is not None
        assert plan.grouping.block is not None
        assert all(side % plan.grouping.chunk == 0 for side in plan.grouping.block)
        assert plan.grouping.block_bytes <= plan.grouping.bytes
        blocks.append(plan.grouping.block)
    assert blocks == sorted(blocks, reverse=True)
    assert blocks[-1] < blocks[0]
    assert "components.py groups it, in blocks of" in str(plan)
    shared = plan_prediction(package, large, cost=COST, memory=3000 * MIB, workers=3)
    assert shared.grouping is not None
    assert shared.grouping.block is not None
    assert 3 * shared.grouping.bytes < 3000 * MIB
    assert shared.memory.of_grouping <= 3000 * MIB


def test_a_memory_too_small_for_any_block_is_refused_before_anything_is_computed(make: Make) -> None:
    package = make()
    large = xr.DataArray(np.broadcast_to(np.uint8(0), (8000, 8000)), dims=("y", "x"))
    with pytest.raises(
        PlanError, match=r"grouping takes .* a block .* give at least \d+ bytes .*--no-grouping"
    ) as refused:
        plan_prediction(package, large, cost=COST, memory=400 * MIB)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    # What then does not fit is the statistics that are taken before the tiles.
    with pytest.raises(PlanError, match="the smallest tile"):
        plan_prediction(package, large, cost=COST, memory=least)


# In blocks


# What a process takes is left out in these tests, so that the memory can be so little that there are blocks.
TINY = Cost(0, 0, 10.0)
LITTLE = 358 * MIB
SCRIPT = textwrap.dedent(
    """
    import json, os, signal, sys
    from im2im_zoo.runtime import predict
    from im2im_zoo.runtime.blockwise.grid import BlockGrid
    from im2im_zoo.runtime.memory import Cost

    arguments = json.loads(sys.argv[1])
    stop_after, seen = arguments.pop("stop_after", None), 0

    def progress(stage, done, total):
        global seen
        seen += stage == "grouping"
        if stop_after is not None and seen > stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    result = predict(**arguments, threads=1, progress=progress, cost=Cost(0, 0, 10.0))
    ours = result.plan.grouping
    print(json.dumps({"tiles": result.tiles, "blocks": len(BlockGrid(ours.sizes, ours.block))}))
    """
)


def run_tiny(folder: Path, **arguments: object) -> subprocess.CompletedProcess[str]:
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(plain)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def wide(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    return xr.DataArray(np.tile(nuclei_2d[0], (4, 4))[:1900, :1800], dims=("y", "x"))


@pytest.mark.slow
@pytest.mark.parametrize("code", [COMPONENTS, COMPONENTS + "\n"])
def test_in_blocks_the_labels_are_those_of_the_whole_image_whatever_the_tiles(
    make: Make, wide: xr.DataArray, tmp_path: Path, code: str
) -> None:
    package = make(code=code)
    options: dict[str, Any] = {"memory": LITTLE, "cost": TINY, "allow_code": True, "halo": 8}
    wanted = expected(package, wide)
    for number, tile in enumerate((300, 610)):
        path = tmp_path / f"{number}.ome.zarr"
        done = predict(package, wide, path, tile={"y": tile, "x": tile}, **options)
        assert done.plan.grouping is not None
        assert done.plan.grouping.block is not None
        labels = open_image(path / "labels" / "instances")
        np.testing.assert_array_equal(labels, wanted)
        assert (done.objects, done.warnings, labels.dtype) == (wanted.max(), (), np.uint32)
        assert not work_folder(path).exists()
    inner = predict_array(package, wide, memory=LITTLE, cost=TINY, halo=8, allow_code=True)
    np.testing.assert_array_equal(inner, wanted)
    # The pyramid takes the nearest, as of any labels.
    levels = [zarr.open_array(path / "labels" / "instances" / str(n)) for n in range(3)]
    np.testing.assert_array_equal(levels[1], levels[0][::2, ::2])
    np.testing.assert_array_equal(levels[2], levels[0][::4, ::4])


@pytest.mark.slow
def test_in_blocks_each_time_point_is_grouped_apart_and_any_output_has_the_labels(
    make: Make, wide: xr.DataArray, tmp_path: Path
) -> None:
    package, movie = make(), xr.concat([wide, wide.isel(y=slice(None, None, -1))], dim="time")
    frames = np.stack([expected(package, frame) for frame in movie])
    for name in ("o.ome.zarr", "o.ome.tif"):
        done = predict(package, movie, tmp_path / name, memory=LITTLE, cost=TINY, halo=8)
        np.testing.assert_array_equal(open_image(done.labels), frames)  # type: ignore[arg-type]
        assert done.objects == sum(int(f.max()) for f in frames)


@pytest.mark.slow
def test_killed_while_grouping_in_blocks_it_goes_on_and_gives_the_same_bytes(
    make: Make, wide: xr.DataArray, tmp_path: Path
) -> None:
    package = make()
    source = write_image(wide, tmp_path / "wide.ome.zarr")
    common = {
        "package": str(package.root),
        "image": source,
        "halo": 8,
        "weights": "torchscript",
        "memory": LITTLE,
    }
    unbroken, broken = tmp_path / "unbroken.ome.zarr", tmp_path / "broken.ome.zarr"
    first = run_tiny(tmp_path, **common, output=unbroken)
    assert first.returncode == 0, first.stderr
    blocks = json.loads(first.stdout.splitlines()[-1])["blocks"]
    assert blocks > 3
    # In the middle of the first step, and of the last.
    for after in (2, blocks + 3):
        stopped = run_tiny(tmp_path, **common, output=broken, stop_after=after)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        assert not broken.exists()
    last = run_tiny(tmp_path, **common, output=broken)
    assert json.loads(last.stdout.splitlines()[-1])["tiles"] == 0
    assert bytes_of(broken).keys() == bytes_of(unbroken).keys()
    for name, content in bytes_of(broken).items():
        assert name == "labels/instances/zarr.json" or content == bytes_of(unbroken)[name], name


# Stopped on the way


@pytest.mark.slow
def test_stopped_while_grouping_it_goes_on_with_the_labels_and_runs_no_tile_again(
    make: Make, movie: xr.DataArray, tmp_path: Path
) -> None:
    package = make()
    source = write_image(movie, tmp_path / "movie.ome.zarr")
    common = {
        "package": str(package.root),
        "image": source,
        "tile": TILE,
        "halo": 8,
        "weights": "torchscript",
    }
    unbroken, broken = tmp_path / "unbroken.ome.zarr", tmp_path / "broken.ome.zarr"
    predict(**common, output=unbroken, threads=1)  # type: ignore[arg-type]
    tiles = len(plan_prediction(package, movie, tile=TILE, halo=8))
    # Each tile is told of, then that grouping begins, then each frame.
    stopped = run(tmp_path, **common, output=broken, stop_after=tiles + 2, by="SIGKILL")
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert not broken.exists()
    assert unfinished(broken)
    assert (work_folder(broken) / "broken.ome.zarr").is_dir()
    again = predict(**common, output=broken, threads=1)  # type: ignore[arg-type]
    assert (again.tiles, again.resumed) == (0, tiles)
    assert bytes_of(broken).keys() == bytes_of(unbroken).keys()
    for name, content in bytes_of(broken).items():
        assert name == "labels/instances/zarr.json" or content == bytes_of(unbroken)[name], name


def test_frames_that_are_grouped_are_not_grouped_again(
    make: Make, movie: xr.DataArray, tmp_path: Path
) -> None:
    code = (
        COMPONENTS
        + """
_group = group

def group(maps, calls, fails_at):
    from pathlib import Path
    count = int(Path(calls).read_text()) + 1
    Path(calls).write_text(str(count))
    if count == fails_at:
        raise ValueError("enough")
    return _group(maps, channel=1, threshold=-0.58, min_size=3)
"""
    )
    calls = tmp_path / "calls"
    calls.write_text("0")
    package = make(code=code, name="counting.py", kwargs={"calls": str(calls), "fails_at": 3})
    output, options = tmp_path / "o.ome.zarr", {"tile": TILE, "halo": 8, "allow_code": True}
    with pytest.raises(PackageError, match="ValueError: enough"):
        predict(package, movie, output, **options)
    assert unfinished(output)
    done = predict(package, movie, output, **options)
    assert calls.read_text() == "4"
    assert done.tiles == 0
    np.testing.assert_array_equal(open_image(done.labels), [expected(package, f) for f in movie])  # type: ignore[arg-type]


def test_the_maps_alone_do_not_go_on_with_what_is_to_be_grouped(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make(code="def group(maps, **kwargs):\n    raise ValueError('no')\n", name="mine.py")
    output = tmp_path / "o.ome.zarr"
    with pytest.raises(PackageError, match="no"):
        predict(package, image, output, allow_code=True)
    with pytest.raises(ImageError, match="restart"):
        predict(package, image, output, group=False)
    done = predict(package, image, output, group=False, restart=True)
    assert (done.labels, done.objects) == (None, None)
    assert not work_folder(output).exists()


def test_a_folder_with_something_else_in_it_is_not_removed(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package, folder = make(), work_folder(tmp_path / "o.tif")
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(ImageError, match=r"in the way.*precious\.txt"):
        predict(package, image, tmp_path / "o.tif")
    assert (folder / "precious.txt").exists()


# What is refused


def test_code_of_others_needs_consent_before_anything_is_computed(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make(code=COLUMNS, name="columns.py", kwargs={})
    for call in (
        lambda **o: predict(package, image, tmp_path / "o.tif", **o),
        lambda **o: predict_array(package, image, **o),
    ):
        with pytest.raises(PackageError, match=r"'group' of columns\.py runs Python code.*--allow-code"):
            call()
        call(group=False)
        (tmp_path / "o.tif").unlink(missing_ok=True)
        call(allow_code=True)
        (tmp_path / "o.tif").unlink(missing_ok=True)
    assert not work_folder(tmp_path / "o.tif").exists()


def test_ours_with_a_byte_more_needs_consent(make: Make, image: xr.DataArray) -> None:
    with pytest.raises(PackageError, match="allow_code=True"):
        predict_array(make(code=COMPONENTS + "\n"), image)


def test_another_function_of_our_file_needs_consent(make: Make, image: xr.DataArray) -> None:
    with pytest.raises(PackageError, match="allow_code=True"):
        predict_array(make(callable="_runs"), image)


def test_a_file_that_was_changed_never_runs(make: Make, image: xr.DataArray) -> None:
    package = make()
    (package.root / "components.py").write_text(COMPONENTS + "\nraise RuntimeError('it ran')\n")
    with pytest.raises(PackageError, match="has not been run"):
        predict_array(package, image, allow_code=True)


def test_a_file_that_is_missing_or_outside_is_refused(make: Make, image: xr.DataArray) -> None:
    package = make()
    (package.root / "components.py").unlink()
    with pytest.raises(PackageError, match="there is no file"):
        predict_array(package, image)
    outside = with_grouping(package.root, name="../components.py")
    with pytest.raises(PackageError, match="lies outside the package"):
        predict_array(outside, image)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def group(maps):\n    return maps[:1].astype(int)", r"labels of shape \(1, 130, 150\)"),
        ("def group(maps):\n    return maps[0]", "float32 values"),
        ("def group(maps):\n    return maps[0].astype(int) - 9", "labels are integers, 0 and above"),
        ("def group(maps):\n    raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def group(maps):\n    maps[:] = 0", "read-only"),
        ("def group(maps, size):\n    pass", "does not take the kwargs.*'size'"),
        ("import nowhere", "cannot be imported"),
        ("groups = 1", "defines no callable"),
    ],
)
def test_a_function_that_does_not_make_labels_is_refused_in_a_sentence(
    make: Make, image: xr.DataArray, code: str, message: str
) -> None:
    package = make(code=code + "\n", name="mine.py", kwargs={})
    with pytest.raises(PackageError, match=message) as refused:
        predict_array(package, image, allow_code=True)
    assert "'group' of mine.py" in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"output": "other"}, "its output 'other'|output is 'other'"),
        ({"callable": 3}, "needs the keys"),
        ({"kwargs": [1]}, "needs the keys"),
        ({"sha256": None}, "needs the keys"),
    ],
)
def test_a_config_that_is_not_ours_is_refused_when_the_package_is_opened(
    make: Make, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        make(**entry)


def test_an_output_that_labels_cannot_be_written_to_is_refused_at_once(
    make: Make, image: xr.DataArray, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"o\.png: labels cannot be written"):
        predict(make(), image, tmp_path / "o.png")
    assert not list(tmp_path.glob("o.png*"))
