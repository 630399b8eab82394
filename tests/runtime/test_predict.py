"""Predictions from file to file: what is written, what is carried over, and what is left after a failure."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from operations_for_tests import NORMALISE_2D
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import Im2ImError, ImageError, PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import open_package
from im2im_zoo.runtime import PredictionResult, open_network, predict, predict_array
from im2im_zoo.runtime.execute.tile_job import cast
from im2im_zoo.runtime.layout.mapping import map_axes
from im2im_zoo.runtime.measure.cost import measure_cost


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory, nuclei_2d) -> Path:
    """Two frames of real nuclei, (time, channel, y, x), with a pixel size."""
    values = np.stack([nuclei_2d[0][:200, :150], nuclei_2d[0][200:400, :150]])[:, None]
    image = xr.DataArray(
        values,
        dims=("time", "channel", "y", "x"),
        coords={"channel": ["dapi"]},
        attrs={"pixel_size_um": {"y": 0.5, "x": 0.25}, "time_step_s": 30.0},
    )
    path = tmp_path_factory.mktemp("movie") / "movie.ome.zarr"
    return write_image(image, path)


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
def test_a_file_becomes_a_file_with_its_sizes_names_and_origin(unet_2d, movie, tmp_path, ending):
    calls: list[tuple[str, int, int]] = []
    output = tmp_path / f"result{ending}"
    result = predict(
        unet_2d,
        movie,
        output,
        tile={"y": 100, "x": 100},
        threads=1,
        progress=lambda *call: calls.append(call),
    )
    assert isinstance(result, PredictionResult)
    written = open_image(output)
    expected = predict_array(unet_2d, open_image(movie), whole=True, threads=1)
    # An OME-TIFF of one channel is read without a channel axis.
    found = written.squeeze().transpose(*expected.squeeze().dims)
    np.testing.assert_allclose(found.values, expected.squeeze().values, atol=1e-5)
    assert written.dtype == np.float32
    assert written.attrs["pixel_size_um"] == pytest.approx({"y": 0.5, "x": 0.25})
    assert written.attrs["time_step_s"] == pytest.approx(30.0)
    if ending == ".ome.zarr":
        assert list(written.channel.values) == ["probability"]
    origin = written.attrs["im2im_zoo"]
    assert origin["model"] == unet_2d.name
    assert origin["model_version"] == "0.3.1"
    assert origin["weights_sha256"] == sha256(unet_2d.root / "weights.onnx")
    assert origin["plan"]["tiles"] == result.tiles
    assert len([c for c in calls if c[0] == "tiles" and c[1]]) == result.tiles
    assert calls[-1] == ("tiles", 2 * 200 * 150, 2 * 200 * 150)
    assert result.voxels == 2 * 200 * 150
    assert result.not_finite == 0
    assert result.voxels_per_second > 0
    assert names_in(tmp_path) == [output.name]


def test_an_existing_output_is_kept_unless_it_may_be_replaced(unet_2d, movie, tmp_path):
    output = tmp_path / "result.ome.zarr"
    predict(unet_2d, movie, output, threads=1)
    with pytest.raises(ImageError, match="exists"):
        predict(unet_2d, movie, output, dtype="uint8")
    assert predict(unet_2d, movie, output, overwrite=True, threads=1).output == output


def test_many_images_pay_once_for_opening_and_measuring(unet_2d, movie, tmp_path):
    engine = open_network(unet_2d, threads=1).engine
    image = open_image(movie)
    cost = measure_cost(engine, map_axes(unet_2d, image))
    assert cost.measured
    assert cost.per_voxel > 4  # more than the input itself
    result = predict(unet_2d, image, tmp_path / "a.ome.tif", engine=engine, cost=cost)
    assert result.plan.cost is cost


def test_output_with_statistics_leaves_no_scratch(folder, movie, tmp_path):
    stretch = spec.ScaleRangeDescr(
        kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], min_percentile=0, max_percentile=100)
    )
    linear = spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=255))
    path = build_package(
        folder / "to_uint8",
        small_unet(levels=1),
        preprocessing=[NORMALISE_2D],
        postprocessing=[stretch, linear],
        output_dtype="uint8",
    )
    predict(path, movie, tmp_path / "result.ome.zarr", tile={"y": 60, "x": 64}, threads=1)
    assert names_in(tmp_path) == ["result.ome.zarr"]
    values = open_image(tmp_path / "result.ome.zarr").values
    assert values.dtype == np.uint8
    assert [v.min() for v in values] == [0, 0]
    assert all(v.max() >= 254 for v in values)  # the spec's ensure_dtype cuts off 254.99


def test_values_that_are_no_numbers_are_counted(folder, tmp_path):
    package = open_package(build_package(folder / "plain", small_unet(levels=1), halo=8, minimum=20))
    image = xr.DataArray(np.ones((60, 60), np.float32), dims=("y", "x"))
    image[30, 30] = np.nan
    result = predict(package, image, tmp_path / "nan.ome.tif", threads=1)
    assert 0 < result.not_finite < 400


def test_a_network_that_breaks_its_promise_is_named_and_nothing_is_left(folder, tmp_path):
    package = open_package(build_package(folder / "liar", small_unet(levels=1, out_channels=2)))
    image = xr.DataArray(np.ones((60, 60), np.float32), dims=("y", "x"))
    with pytest.raises(
        PackageError, match=r"declares outputs of shape \(1, 1, 60, 60\).*returns \(1, 2, 60, 60\)"
    ):
        predict(package, image, tmp_path / "out.ome.zarr", threads=1)
    assert names_in(tmp_path) == []


def test_a_wrong_size_is_named_with_the_file_and_the_shape(folder, tmp_path):
    package = open_package(build_package(folder / "off_grid", small_unet(levels=2), minimum=37, step=1))
    image = xr.DataArray(np.ones((61, 61), np.float32), dims=("y", "x"))
    with pytest.raises(
        PackageError, match=r"weights.pt \(torchscript\): the network failed on input of shape"
    ):
        predict(package, image, tmp_path / "out.ome.zarr", threads=1)
    assert names_in(tmp_path) == []


def test_a_custom_operation_does_not_run_without_consent(folder, movie, tmp_path):
    from test_tiled_equals_whole import _custom_package

    package = _custom_package(folder, "labels_without_consent")
    with pytest.raises(Im2ImError, match="allow"):
        predict(package, movie, tmp_path / "out.ome.zarr", threads=1)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([-3.0, 0.4, 0.6, 300.0, np.nan, np.inf], "uint8", [0, 0, 1, 255, 0, 255]),
        ([2.0**40, -(2.0**40)], "int32", [2147483520, -(2**31)]),
        ([0.5, 2.5], "float64", [0.5, 2.5]),
    ],
)
def test_values_are_rounded_and_held_within_the_outputs_type(values, dtype, expected):
    result = cast(np.array(values, np.float32), dtype)
    assert result.dtype == dtype
    assert result.tolist() == expected


def test_integers_are_held_within_a_smaller_type():
    assert cast(np.array([-1, 70_000], np.int32), "uint16").tolist() == [0, 65535]
    assert cast(np.array([5], np.uint8), "int64").tolist() == [5]


@pytest.mark.parametrize("within", ["", "0"])
def test_the_input_is_not_replaced_by_its_prediction(unet_2d, movie, tmp_path, within):
    path = write_image(open_image(movie), tmp_path / "movie.ome.zarr")
    before = open_image(path).values
    with pytest.raises(ImageError, match="contains the input"):
        predict(unet_2d, path / within, path, overwrite=True, threads=1)
    np.testing.assert_array_equal(open_image(path).values, before)


def test_statistics_of_values_that_are_no_numbers_name_the_file(unet_2d, tmp_path):
    values = np.ones((60, 60), np.float32)
    values[30, 30] = np.nan
    np.save(tmp_path / "holes.npy", values)
    with pytest.raises(Im2ImError, match=r"holes\.npy.*NaN"):
        predict(unet_2d, tmp_path / "holes.npy", tmp_path / "out.ome.zarr", threads=1)
    assert names_in(tmp_path) == ["holes.npy"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (5, 7)])
def test_images_of_a_few_pixels_are_run(unet_2d, shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    image = xr.DataArray(values, dims=("y", "x"))
    result = predict_array(unet_2d, image, threads=1)
    assert result.shape == shape
    assert np.isfinite(result.values).all()


def test_weights_that_were_changed_are_not_run(folder, tmp_path):
    root = build_package(tmp_path / "changed", small_unet(levels=1), weights=("onnx",))
    damaged = bytearray((root / "weights.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (root / "weights.onnx").write_bytes(bytes(damaged))
    with pytest.raises(PackageError, match=r"weights\.onnx was changed or damaged"):
        open_network(open_package(root))
