"""An input that changes while it is predicted is noticed: no output is a mix of two images."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.execute.work_folder import work_folder

OPTIONS: dict[str, Any] = {"tile": {"y": 60, "x": 60}, "halo": 16, "weights": "torchscript", "threads": 1}


def image(seed: int) -> xr.DataArray:
    values = np.random.default_rng(seed).integers(1, 4000, (180, 150)).astype(np.uint16)
    return xr.DataArray(values, dims=("y", "x"))


def replace_file(path: Path) -> None:
    """Put another image in place of the file, in one step."""
    write_image(image(1), path, overwrite=True)


def change_in_place(path: Path) -> None:
    """Change some bytes; keep the size."""
    with path.open("r+b") as file:
        file.seek(-20_000, os.SEEK_END)
        file.write(bytes(10_000))


def link_another(path: Path) -> None:
    """Let the path be a link to another image, as it was one to the first."""
    path.unlink()
    path.symlink_to(write_image(image(1), path.with_name(f"other_{path.name}")))


def rewrite_a_chunk(path: Path) -> None:
    """Write voxels into the zarr, as another program does that is not finished."""
    import zarr

    zarr.open_array(path / "0", mode="r+")[:50, :50] = 7


def predict_and_change(
    package: Package, source: Path, output: Path, change: Callable[[Path], None]
) -> tuple[pytest.ExceptionInfo[ImageError], list[int]]:
    """Predict, change the image after half of the tiles, and return the error and the reports of the tiles."""
    left, reports = [change], list[int]()

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "tiles":
            reports.append(done)
        if stage == "tiles" and 2 * done >= total and left:
            left.pop()(source)

    with pytest.raises(ImageError) as refused:
        predict(package, source, output, progress=progress, **OPTIONS)
    return refused, reports


@pytest.mark.parametrize(
    ("name", "change", "is_early"),
    [
        ("image.tif", replace_file, True),
        ("image.npy", change_in_place, True),
        ("image.npy", link_another, True),
        ("image.ome.zarr", replace_file, True),
        ("image.ome.zarr", rewrite_a_chunk, False),
    ],
)
def test_no_output_is_a_mix_of_two_images(
    unet_2d: Package, tmp_path: Path, name: str, change: Callable[[Path], None], is_early: bool
) -> None:
    source, output = write_image(image(0), tmp_path / name), tmp_path / "out.ome.zarr"
    refused, reports = predict_and_change(unet_2d, source, output, change)
    assert "would mix two images" in str(refused.value)
    assert name in str(refused.value)
    assert "--restart" in str(refused.value)
    assert not output.exists()
    assert (reports[-1] < 180 * 150) == is_early
    assert predict(unet_2d, source, output, restart=True, **OPTIONS).resumed == 0


def test_tiles_of_two_images_are_not_used_when_the_first_image_is_back(
    unet_2d: Package, tmp_path: Path
) -> None:
    source, output = write_image(image(0), tmp_path / "image.npy"), tmp_path / "out.ome.zarr"
    before = source.stat()
    content = source.read_bytes()
    predict_and_change(unet_2d, source, output, change_in_place)
    source.write_bytes(content)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(PlanError, match=r"(?s)cannot be resumed: .*image\.npy was changed.*--restart"):
        predict(unet_2d, source, output, **OPTIONS)
    assert work_folder(output).exists()


def test_labels_and_predictions_in_the_image_are_no_change_of_it(unet_2d: Package, tmp_path: Path) -> None:
    source = write_image(image(0), tmp_path / "image.ome.zarr")
    predict(unet_2d, source, source / "predicted.ome.zarr", **OPTIONS)
    write_image((open_image(source) // 1000).astype("uint8"), source / "labels" / "cells", labels=True)
    np.testing.assert_array_equal(open_image(source), image(0))
