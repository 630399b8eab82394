"""The claim of the runtime: tiles give what the whole image gives. Whole is computed here, without the runtime."""

import functools
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5 as spec
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from operations_for_tests import NORMALISE_2D, SIGMOID
from packages_for_tests import REACH, ChannelsLast, Doubling, Halving, build_package, small_unet

from im2im_zoo.engines import Engine
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime import open_network, plan_prediction, predict_array
from im2im_zoo.runtime.plan.memory import Cost

TOLERANCE = 1e-5
few = settings(max_examples=12, deadline=None)


@functools.cache
def engine_of(package: Package, weights: str | None = None) -> Engine:
    return open_network(package, weights=weights, threads=1, measure=False).engine


def image_2d(height: int, width: int, seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    return xr.DataArray(rng.integers(0, 5000, (height, width)).astype(np.uint16), dims=("y", "x"))


def whole_by_hand(
    engine: Engine, values: NDArray[np.uint16], minimum: int = 36, step: int = 4
) -> NDArray[np.float32]:
    """Normalise with numpy, pad once with numpy, run the network once, crop, sigmoid."""
    image = values.astype(np.float64)
    normalised = ((image - image.mean()) / (image.std() + 1e-6)).astype(np.float32)
    pads = [(0, minimum + max(0, -(-(n - minimum) // step)) * step - n) for n in image.shape]
    padded = np.pad(normalised, pads, mode="reflect")
    (output,) = engine([padded[None, None]])
    cropped = output[0, 0, : image.shape[0], : image.shape[1]]
    return 1 / (1 + np.exp(-cropped))


@few
@given(
    st.integers(2, 150),
    st.integers(2, 150),
    st.sampled_from([36, 40, 56, 100]),
    st.sampled_from([36, 48, 64]),
    st.sampled_from(["onnx", "torchscript"]),
)
def test_tiles_of_any_size_equal_the_whole_image(unet_2d, height, width, tile_y, tile_x, weights):
    image = image_2d(height, width)
    engine = engine_of(unet_2d, weights)
    expected = whole_by_hand(engine, image.values)
    whole = predict_array(unet_2d, image, engine=engine, whole=True)
    tiled = predict_array(unet_2d, image, engine=engine, tile={"y": tile_y, "x": tile_x})
    np.testing.assert_allclose(whole, expected, atol=TOLERANCE)
    np.testing.assert_allclose(tiled, expected, atol=TOLERANCE)


def test_without_halo_the_tiles_differ(unet_2d):
    image = image_2d(120, 120)
    engine = engine_of(unet_2d)
    whole = predict_array(unet_2d, image, engine=engine, whole=True)
    tiled = predict_array(unet_2d, image, engine=engine, tile={"y": 60, "x": 60}, halo=0)
    assert np.abs(tiled - whole).max() > 100 * TOLERANCE


@few
@given(
    st.integers(2, 24),
    st.integers(30, 70),
    st.integers(30, 60),
    st.sampled_from([22, 24]),
    st.sampled_from([32, 40]),
)
def test_tiles_of_a_3d_image_with_channels_equal_the_whole(unet_3d, depth, height, width, tile_z, tile_yx):
    rng = np.random.default_rng(depth)
    values = rng.normal(100, 30, (2, depth, height, width)).astype(np.float32)
    image = xr.DataArray(values, dims=("channel", "z", "y", "x"))
    engine = engine_of(unet_3d)
    tiled = predict_array(unet_3d, image, engine=engine, tile={"z": tile_z, "y": tile_yx, "x": tile_yx})
    normalised = ((values - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)).astype(np.float32)
    least, steps = (18, 20, 20), (2, 2, 2)
    pads = [
        (0, m + max(0, -(-(n - m) // s)) * s - n)
        for n, m, s in zip(values.shape[1:], least, steps, strict=True)
    ]
    padded = np.pad(normalised, [(0, 0), *pads], mode="reflect")
    (expected,) = engine([padded[None]])
    np.testing.assert_allclose(tiled, expected[0][:, :depth, :height, :width], atol=TOLERANCE)
    assert tiled.dims == ("channel", "z", "y", "x")
    assert list(tiled.channel.values) == ["inside", "edge"]


@few
@given(st.integers(20, 200), st.integers(20, 200))
def test_a_network_of_one_size_gives_what_it_would_give_on_the_whole_image(
    unet_2d, unet_2d_fixed, height, width
):
    image = image_2d(height, width)
    tiled = predict_array(unet_2d_fixed, image, engine=engine_of(unet_2d_fixed), halo="declared")
    # With its halo of 16, 64 is taken to be pooled by 16, so the whole image is padded to 64 + n * 16.
    expected = whole_by_hand(engine_of(unet_2d, "torchscript"), image.values, minimum=64, step=16)
    np.testing.assert_allclose(tiled, expected, atol=TOLERANCE)


def test_the_result_does_not_depend_on_the_memory(unet_2d):
    image = image_2d(301, 170)
    engine = engine_of(unet_2d)
    cost = Cost(process=0, call=0, per_voxel=20_000.0)
    plans = [plan_prediction(unet_2d, image, cost=cost, memory=m) for m in (480_000_000, 800_000_000, 10**10)]
    assert len({len(p) for p in plans}) == 3
    results = [
        predict_array(unet_2d, image, engine=engine, cost=cost, memory=p.budget, halo="declared")
        for p in plans
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=TOLERANCE)


def test_every_frame_and_plane_of_a_5d_image_is_a_sample_of_its_own(unet_2d):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 900, (2, 1, 3, 70, 45)).astype(np.uint16)
    values[1] *= 7
    image = xr.DataArray(values, dims=("time", "channel", "z", "y", "x"), coords={"channel": ["dapi"]})
    engine = engine_of(unet_2d)
    result = predict_array(unet_2d, image, engine=engine, tile={"y": 40, "x": 40})
    assert result.dims == ("time", "channel", "z", "y", "x")
    assert list(result.channel.values) == ["probability"]
    for t in range(2):
        for z in range(3):
            expected = whole_by_hand(engine, values[t, 0, z])
            np.testing.assert_allclose(result.values[t, 0, z], expected, atol=TOLERANCE)


def test_the_order_of_the_images_axes_does_not_matter(unet_3d):
    rng = np.random.default_rng(2)
    image = xr.DataArray(rng.normal(size=(40, 2, 20, 36)).astype(np.float32), dims=("x", "channel", "z", "y"))
    engine = engine_of(unet_3d)
    result = predict_array(unet_3d, image, engine=engine)
    plain = predict_array(unet_3d, image.transpose("channel", "z", "y", "x"), engine=engine)
    xr.testing.assert_allclose(result, plain)


def test_a_model_with_channels_last_and_without_halo_axes_reordered(folder):
    path = build_package(
        folder / "channels_last",
        ChannelsLast(small_unet(levels=1)),
        axes=("batch", "y", "x", "channel"),
        preprocessing=[NORMALISE_2D],
        postprocessing=[SIGMOID],
        example=None,
    )
    package = open_package(path)
    image = image_2d(90, 77)
    engine = engine_of(package)
    tiled = predict_array(package, image, engine=engine, tile={"y": 40, "x": 44}, halo=REACH[1])
    plain = open_package(
        build_package(
            folder / "channels_first",
            small_unet(levels=1),
            preprocessing=[NORMALISE_2D],
            postprocessing=[SIGMOID],
        )
    )
    np.testing.assert_allclose(tiled, whole_by_hand(engine_of(plain), image.values), atol=TOLERANCE)


@pytest.mark.parametrize(("network", "scale", "factor"), [(Doubling(), 0.5, 2), (Halving(), 2.0, 0.5)])
def test_an_output_of_another_scale_is_put_together_at_its_own_size(folder, network, scale, factor):
    path = folder / type(network).__name__
    package = open_package(build_package(path, network.eval(), scale=scale, minimum=18, step=2, halo=4))
    image = image_2d(51, 38).astype(np.float32)
    image.attrs["pixel_size_um"] = {"y": 0.5, "x": 0.25}
    engine = engine_of(package)
    tiled = predict_array(package, image, engine=engine, tile={"y": 22, "x": 24})
    (output,) = engine([np.pad(image.values, ((0, 1), (0, 0)), mode="reflect")[None, None]])
    shape = tuple(int(n * factor) for n in image.shape)
    assert tiled.shape == shape
    np.testing.assert_allclose(tiled, output[0, 0, : shape[0], : shape[1]], rtol=1e-5, atol=1e-2)
    assert tiled.attrs["pixel_size_um"] == {"y": 0.5 / factor, "x": 0.25 / factor}


def test_statistics_of_the_output_are_of_the_whole_output(folder, unet_2d):
    stretch = spec.ScaleRangeDescr(
        kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], max_percentile=100)
    )
    path = build_package(
        folder / "stretched", small_unet(levels=2), preprocessing=[NORMALISE_2D], postprocessing=[stretch]
    )
    package = open_package(path)
    image = image_2d(130, 95)
    engine = engine_of(package)
    assert plan_prediction(package, image).whole_after == {"out"}
    tiled = predict_array(package, image, engine=engine, tile={"y": 48, "x": 44})
    probability = whole_by_hand(engine, image.values).astype(np.float64)
    raw = np.log(probability / (1 - probability))
    np.testing.assert_allclose(tiled, (raw - raw.min()) / (np.ptp(raw) + 1e-6), atol=1e-4)
    assert (tiled.min(), tiled.max()) == pytest.approx((0, 1), abs=1e-4)


def test_the_output_can_be_given_the_mean_and_variance_of_the_input(folder):
    match = spec.ScaleMeanVarianceDescr(
        kwargs=spec.ScaleMeanVarianceKwargs(axes=["channel", "y", "x"], reference_tensor="raw")
    )
    path = build_package(
        folder / "matched", small_unet(levels=1), preprocessing=[NORMALISE_2D], postprocessing=[match]
    )
    package = open_package(path)
    image = image_2d(60, 75)
    tiled = predict_array(package, image, engine=engine_of(package), tile={"y": 40, "x": 44})
    assert tiled.values.mean() == pytest.approx(image.values.mean(), rel=1e-4)
    assert tiled.values.std() == pytest.approx(image.values.std(), rel=1e-4)


CUSTOM = '''
from scipy import ndimage


class Label:
    """Connected components, which no tile can find."""

    def __init__(self, threshold):
        self.threshold = threshold

    def __call__(self, array):
        return ndimage.label(array.reshape(array.shape[-2:]) > self.threshold)[0].reshape(array.shape)
'''


def _custom_package(folder: Path, name: str) -> Package:
    import hashlib

    with ValidationContext(perform_io_checks=False):
        operation = spec.CustomProcessingDescr(
            callable="Label",
            source="label.py",
            sha256=hashlib.sha256(CUSTOM.encode()).hexdigest(),
            kwargs={"threshold": 0.5},
        )
    return open_package(
        build_package(
            folder / name,
            small_unet(levels=1),
            preprocessing=[NORMALISE_2D],
            postprocessing=[SIGMOID, operation],
            output_dtype="uint16",
            sources={"label.py": CUSTOM},
        )
    )


def test_objects_are_not_cut_at_the_borders_of_tiles(folder):
    from scipy import ndimage

    package = _custom_package(folder, "labels")
    image = image_2d(96, 80)
    tiled = predict_array(package, image, engine=engine_of(package), tile={"y": 40, "x": 44}, allow_code=True)
    expected, count = ndimage.label(whole_by_hand(engine_of(package), image.values) > 0.5)
    assert count > 5
    assert tiled.dtype == np.uint16
    np.testing.assert_array_equal(tiled, expected)


# bioimageio.core leaves the weights' file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_agrees_with_bioimageio_core_on_the_grid_and_without_a_halo(folder):
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core import predict as core_predict
    from bioimageio.spec import load_model_description

    # With a halo, core 0.11 pads the image by it before it takes the statistics.
    path = build_package(
        folder / "no_halo",
        small_unet(levels=2),
        halo=0,
        preprocessing=[NORMALISE_2D],
        postprocessing=[SIGMOID],
    )
    package = open_package(path)
    image = image_2d(64, 96)
    model = load_model_description(path / "rdf.yaml", perform_io_checks=False)
    pipeline = create_prediction_pipeline(model, weights_format="torchscript")
    sample = core_predict(model=pipeline, inputs={"raw": image.values[None, None]})
    theirs = next(t.data for name, t in sample.members.items() if str(name) == "out")
    ours = predict_array(package, image, engine=engine_of(package), tile={"y": 48, "x": 48}, halo=REACH[2])
    np.testing.assert_allclose(ours, theirs.values[0, 0], atol=TOLERANCE)
