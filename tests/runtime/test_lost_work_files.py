"""Files of an unfinished prediction that somebody removes are noticed before an output takes its name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import MakeGrouped

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.execute.work_folder import find_unfinished, work_folder

OPTIONS: dict[str, Any] = {"tile": {"y": 60, "x": 60}, "halo": 16, "weights": "torchscript", "threads": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).integers(1, 4000, (180, 150)).astype(np.uint16)
    return write_image(
        xr.DataArray(values, dims=("y", "x")), tmp_path_factory.mktemp("image") / "image.ome.zarr"
    )


def once(stage: str, then: Callable[[], None]) -> Callable[[str, int, int], None]:
    """A callback of progress that does something when half of a stage is done."""
    left = [then]

    def progress(now: str, done: int, total: int) -> None:
        if now == stage and 2 * done >= total and left:
            left.pop()()

    return progress


@pytest.mark.parametrize("ending", [".ome.zarr", ".tif"])
def test_a_work_folder_that_is_removed_midway_ends_the_prediction(
    unet_2d: Package, source: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"out{ending}"
    work = work_folder(output)
    with pytest.raises(ImageError, match=r"removed"):
        predict(
            unet_2d,
            source,
            output,
            progress=once("tiles", lambda: shutil.rmtree(work, ignore_errors=True)),
            **OPTIONS,
        )
    assert not output.exists()
    # The same command computes everything again.
    assert predict(unet_2d, source, output, **OPTIONS).resumed == 0
    predict(unet_2d, source, tmp_path / f"whole{ending}", **OPTIONS)
    np.testing.assert_array_equal(open_image(output), open_image(tmp_path / f"whole{ending}"))


@pytest.mark.parametrize(
    ("pattern", "how", "named"),
    [
        ("0/c/0/0", Path.unlink, r"1 of \d+ chunks of the finished tiles are missing"),
        ("0/c/0/0", lambda chunk: chunk.write_bytes(b"short"), r"cut short: \d+ of \d+ bytes"),
        ("0/zarr.json", Path.unlink, "was removed"),
    ],
)
def test_parts_of_the_output_that_are_lost_midway_are_named(
    unet_2d: Package, source: Path, tmp_path: Path, pattern: str, how: Callable[[Path], Any], named: str
) -> None:
    output = tmp_path / "out.ome.zarr"
    partial = work_folder(output) / output.name
    with pytest.raises(ImageError, match=named):
        predict(unet_2d, source, output, progress=once("tiles", lambda: how(partial / pattern)), **OPTIONS)
    assert not output.exists()


def test_chunks_that_are_lost_between_two_runs_are_noticed_before_the_next_tile(
    unet_2d: Package, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.ome.zarr"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(unet_2d, source, output, progress=once("tiles", interrupt), **OPTIONS)
    (work_folder(output) / output.name / "0/c/0/0").unlink()
    seen: list[str] = []
    with pytest.raises(ImageError, match=r"1 of \d+ chunks.*--restart"):
        predict(unet_2d, source, output, progress=lambda stage, *_: seen.append(stage), **OPTIONS)
    assert not seen
    assert find_unfinished(output) is None
    with pytest.raises(PlanError, match=r"cannot be resumed: .* 1 of \d+ chunks"):
        predict(unet_2d, source, output, **OPTIONS)
    assert predict(unet_2d, source, output, restart=True, **OPTIONS).resumed == 0


def test_scratch_that_is_lost_midway_is_noticed(stretched: Package, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"

    def remove() -> None:
        chunk = next(p for p in (work_folder(output) / "scratch_0.zarr").rglob("*") if p.name == "0")
        while chunk.is_dir():
            chunk = next(chunk.iterdir())
        chunk.unlink()

    with pytest.raises(ImageError, match=r"scratch_0\.zarr"):
        predict(stretched, source, output, progress=once("tiles", remove), **OPTIONS)
    assert not output.exists()


@pytest.mark.parametrize("inner", ["o.ome.zarr", "o.tif"])
def test_maps_that_are_lost_while_objects_are_found_are_noticed(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path, inner: str
) -> None:
    output = tmp_path / inner

    def remove() -> None:
        maps = next(work_folder(output).glob("*.ome.zarr"))
        (maps / "0/c/0/0/0/0").unlink()

    options = {"tile": {"y": 60, "x": 60}, "halo": 8}
    with pytest.raises(ImageError, match="chunks of the finished tiles are missing"):
        predict(make_grouped(), movie, output, progress=once("instances", remove), **options)
    assert not output.exists()
