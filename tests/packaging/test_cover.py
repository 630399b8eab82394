"""The cover shows red, green and blue in their own colours."""

from pathlib import Path

import numpy as np
import xarray as xr
from PIL import Image

from im2im_zoo.packaging.export.cover import write_cover


def picture_of(path: Path, names: list[str]) -> np.ndarray:
    tissue = np.zeros((3, 200, 200), np.uint8)
    tissue[0], tissue[2] = 200, 90
    image = xr.DataArray(tissue, dims=("channel", "y", "x"), coords={"channel": names})
    result = image.astype(np.float32) / 255
    write_cover(path, image, result, "regression")
    return np.asarray(Image.open(path))


def test_colours_of_image_and_result_are_their_own(tmp_path: Path) -> None:
    shown = picture_of(tmp_path / "a.png", ["red", "green", "blue"])
    assert shown[200, 100].tolist() == [200, 0, 90]
    # The result has other numbers: its brightest is white.
    red, green, blue = shown[200, 600].tolist()
    assert (red, green) == (255, 0)
    assert abs(blue - 255 * 90 / 200) < 2


def test_other_channels_have_colours_that_all_eyes_tell_apart(tmp_path: Path) -> None:
    shown = picture_of(tmp_path / "a.png", ["DAPI", "GFP", "RFP"])
    assert shown[200, 100].tolist() != [200, 0, 90]
