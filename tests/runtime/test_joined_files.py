"""An input of several files: their channels are one image's, whatever the files, and what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.cli.app import app
from im2im_zoo.core.errors import AxesError, ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.execute.work_folder import find_unfinished
from im2im_zoo.runtime.inputs import open_joined

SIZES = {"z": 30, "y": 60, "x": 52}
TILE = {"z": 26, "y": 40, "x": 40}


def image_of(channels: int, seed: int, **sizes: int) -> xr.DataArray:
    whole = {"channel": channels, **SIZES, **sizes}
    values = np.random.default_rng(seed).integers(0, 4000, tuple(whole.values()), np.uint16)
    return xr.DataArray(values, dims=tuple(whole), attrs={"pixel_size_um": {"z": 1.0, "y": 0.5, "x": 0.5}})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Both channels, the first alone in a file without a channel axis, and the second with one."""
    both = image_of(2, 0)
    return (
        write_image(both, tmp_path / "both.ome.zarr"),
        write_image(both[0], tmp_path / "dna.ome.tif"),
        write_image(both[[1]].assign_coords(channel=["membrane"]), tmp_path / "other.ome.zarr"),
    )


def test_files_that_are_joined_give_what_one_file_of_all_channels_gives(
    unet_3d: Package, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    both, dna, other = files
    common: dict[str, Any] = {"tile": TILE, "halo": 8, "weights": "onnx"}
    expected = predict(unet_3d, both, tmp_path / "expected.ome.zarr", **common)
    joined = predict(unet_3d, dna, tmp_path / "joined.ome.zarr", join=[other], **common)
    turned = predict(
        unet_3d, other, tmp_path / "turned.ome.zarr", join=[dna], channels=["dna", "membrane"], **common
    )
    found = open_image(expected.output)
    assert found.sizes == {"channel": 2, **SIZES}
    for done in (joined, turned):
        made = open_image(done.output)
        xr.testing.assert_equal(made, found)
        assert made.attrs["pixel_size_um"] == found.attrs["pixel_size_um"]


def test_the_command_joins_files_in_several_processes(
    unet_3d: Package, files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, dna, other = map(str, files)
    options = ["--tile", "z=26,y=40,x=40", "--halo", "8", "--weights", "onnx", "--json"]
    for image, name, more in (
        (both, "expected", []),
        (dna, "joined", ["--join", other, "--workers", "2"]),
    ):
        arguments = ["predict", str(unet_3d.root), image, str(tmp_path / f"{name}.ome.zarr"), *more, *options]
        app(arguments, standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["tiles"] > 1
    xr.testing.assert_equal(
        open_image(tmp_path / "joined.ome.zarr"), open_image(tmp_path / "expected.ome.zarr")
    )


def test_files_that_do_not_say_their_axes_have_those_that_are_given(
    unet_3d: Package, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    both, dna, other = files
    arrays = [tmp_path / "a.b.npy", tmp_path / "c.npy"]
    for path, image in zip(arrays, open_image(both), strict=True):
        np.save(path, image.to_numpy())
    expected = open_joined([dna, other])
    for second in (arrays[1], other):
        joined = open_joined([arrays[0], second], axes="zyx")
        np.testing.assert_array_equal(joined, expected)
    assert list(open_joined(arrays, axes="zyx")["channel"].values) == ["a.b", "c"]
    with pytest.raises(AxesError, match="does not say which axes"):
        open_joined([dna, arrays[1]])


def test_another_second_file_is_not_mixed_into_an_unfinished_prediction(
    unet_3d: Package, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, dna, other = files
    output = tmp_path / "out.ome.zarr"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "tiles" and done:
            raise KeyboardInterrupt

    common: dict[str, Any] = {"tile": TILE, "halo": 8, "weights": "onnx"}
    with pytest.raises(KeyboardInterrupt):
        predict(unet_3d, dna, output, join=[other], progress=stop, **common)
    assert find_unfinished(output)
    another = write_image(image_of(1, 1), tmp_path / "another.ome.zarr")
    with pytest.raises(PlanError, match="--restart"):
        predict(unet_3d, dna, output, join=[another], **common)
    assert predict(unet_3d, dna, output, join=[other], **common).resumed > 0


def test_what_does_not_fit_is_refused_and_no_input_is_overwritten(
    unet_3d: Package, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, dna, other = files
    narrow = write_image(image_of(1, 2, x=40), tmp_path / "narrow.ome.zarr")
    with pytest.raises(
        ImageError, match=r"joined have different sizes[\s\S]*dna\.ome\.tif[\s\S]*narrow\.ome\.zarr"
    ):
        predict(unet_3d, dna, tmp_path / "out.ome.zarr", join=[narrow])
    coarse = image_of(1, 2)
    coarse.attrs["pixel_size_um"] = {"z": 2.0, "y": 0.5, "x": 0.5}
    with pytest.raises(ImageError, match=r"different pixel sizes along z[\s\S]*: 2 µm"):
        predict(
            unet_3d, dna, tmp_path / "out.ome.zarr", join=[write_image(coarse, tmp_path / "coarse.ome.zarr")]
        )
    with pytest.raises(ImageError, match=r"other\.ome\.zarr contains the input"):
        predict(unet_3d, dna, other, join=[other], overwrite=True)
    with pytest.raises(ImageError, match="has no single channel 'dan'"):
        predict(unet_3d, dna, tmp_path / "out.ome.zarr", join=[other], channels=["dan", "membrane"])
    assert not (tmp_path / "out.ome.zarr").exists()
