"""Predictions that are stopped while they group go on with it, and give the same bytes."""

import signal
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import COMPONENTS, MakeGrouped, expected_labels
from test_resume import bytes_of, run

from im2im_zoo.core.errors import ImageError, PackageError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.runtime import plan_prediction, predict
from im2im_zoo.runtime.execute.work_folder import find_unfinished, work_folder

TILE = {"y": 60, "x": 60}


@pytest.mark.slow
def test_stopped_while_grouping_it_goes_on_with_the_labels_and_runs_no_tile_again(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped()
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
    stopped = run(**common, output=broken, stop_after=tiles + 2, by="SIGKILL")
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert not broken.exists()
    assert find_unfinished(broken)
    assert (work_folder(broken) / "broken.ome.zarr").is_dir()
    again = predict(**common, output=broken, threads=1)  # type: ignore[arg-type]
    assert (again.tiles, again.resumed) == (0, tiles)
    assert bytes_of(broken).keys() == bytes_of(unbroken).keys()
    for name, content in bytes_of(broken).items():
        assert name == "labels/instances/zarr.json" or content == bytes_of(unbroken)[name], name


def test_frames_that_are_grouped_are_not_grouped_again(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path
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
    package = make_grouped(code=code, name="counting.py", kwargs={"calls": str(calls), "fails_at": 3})
    output, options = tmp_path / "o.ome.zarr", {"tile": TILE, "halo": 8, "allow_code": True}
    with pytest.raises(PackageError, match="ValueError: enough"):
        predict(package, movie, output, **options)
    assert find_unfinished(output)
    done = predict(package, movie, output, **options)
    assert calls.read_text() == "4"
    assert done.tiles == 0
    np.testing.assert_array_equal(open_image(done.labels), [expected_labels(package, f) for f in movie])  # type: ignore[arg-type]


def test_the_maps_alone_do_not_go_on_with_what_is_to_be_grouped(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped(code="def group(maps, **kwargs):\n    raise ValueError('no')\n", name="mine.py")
    output = tmp_path / "o.ome.zarr"
    with pytest.raises(PackageError, match="no"):
        predict(package, image, output, allow_code=True)
    with pytest.raises(ImageError, match="restart"):
        predict(package, image, output, group=False)
    done = predict(package, image, output, group=False, restart=True)
    assert (done.labels, done.objects) == (None, None)
    assert not work_folder(output).exists()


def test_a_folder_with_something_else_in_it_is_not_removed(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package, folder = make_grouped(), work_folder(tmp_path / "o.tif")
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(ImageError, match=r"other files than those.*precious\.txt"):
        predict(package, image, tmp_path / "o.tif")
    assert (folder / "precious.txt").exists()
