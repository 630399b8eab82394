import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import evaluate
from im2im_zoo.evaluation.baselines import (
    best_gaussian,
    linear_fit,
    otsu_instances,
    otsu_mask,
    watershed_instances,
)
from im2im_zoo.evaluation.regression import pair_sums


@pytest.fixture(scope="module")
def volume(nuclei_3d):
    return xr.DataArray(nuclei_3d[0], dims=("z", "y", "x"), attrs={"pixel_size_um": {"z": 1.0, "x": 0.5}})


def test_otsu_finds_its_threshold_per_channel_and_keeps_axes_and_pixel_size(volume):
    two = xr.concat([volume, volume // 2 + 7], dim="channel", combine_attrs="override")
    mask = otsu_mask(two)
    assert mask.dims == two.dims
    assert mask.dtype == np.uint8
    assert mask.attrs["pixel_size_um"] == {"z": 1.0, "x": 0.5}
    for k in range(2):
        values = two.to_numpy()[k]
        np.testing.assert_array_equal(mask.to_numpy()[k], values > threshold_otsu(values))
    assert "Otsu" in mask.attrs["baseline"]


def test_otsu_of_a_constant_image_is_empty():
    assert not otsu_mask(xr.DataArray(np.full((4, 4), 3), dims=("y", "x"))).any()


def test_components_are_numbered_without_gaps_and_small_ones_dropped(volume):
    every, large = otsu_instances(volume), otsu_instances(volume, smallest=50)
    assert every.dtype == np.int32
    for labels in (every, large):
        assert np.unique(labels).tolist() == list(range(int(labels.max()) + 1))
    assert 0 < large.max() <= every.max()
    assert np.bincount(large.to_numpy().ravel())[1:].min() >= 50
    np.testing.assert_array_equal(every > 0, otsu_mask(volume) > 0)


def test_each_time_point_gets_its_own_components():
    frames = xr.DataArray([[[0, 9, 0, 9]], [[9, 9, 0, 0]]], dims=("time", "y", "x"))
    assert otsu_instances(frames).to_numpy().tolist() == [[[0, 1, 0, 2]], [[1, 1, 0, 0]]]


def test_the_line_is_the_least_squares_line(volume):
    rng = np.random.default_rng(0)
    target = (0.3 * volume + 12 + rng.normal(0, 5, volume.shape)).transpose("y", "x", "z")
    slope, offset = np.polyfit(
        volume.transpose("y", "x", "z").to_numpy().ravel(), target.to_numpy().ravel(), 1
    )
    line = linear_fit(volume, target)
    assert line.dims == target.dims
    np.testing.assert_allclose(line, slope * volume.transpose(*line.dims) + offset, rtol=1e-4)
    assert f"{slope:.4g} x" in line.attrs["baseline"]


def test_no_line_through_a_constant_is_the_mean():
    line = linear_fit(xr.DataArray([[2, 2]], dims=("y", "x")), xr.DataArray([[1.0, 2.0]], dims=("y", "x")))
    assert line.to_numpy().tolist() == [[1.5, 1.5]]


def test_the_best_sigma_is_taken(volume):
    noisy = volume + np.random.default_rng(0).normal(0, 60, volume.shape)
    result = best_gaussian(noisy, volume, sigmas=(0.3, 1.0, 8.0))
    errors = {
        s: pair_sums(gaussian_filter(noisy.to_numpy(), s), volume.to_numpy()).mse() for s in (0.3, 1.0, 8.0)
    }
    assert result.attrs["sigma"] == min(errors, key=errors.__getitem__)
    better = evaluate(result, volume, "regression").metrics["psnr"]
    assert better > evaluate(noisy, volume, "regression").metrics["psnr"]


def test_the_sigma_of_a_fitted_gaussian_is_that_of_the_least_error_after_the_fit(volume):
    """Of an image in other units, and noisy: what a fit before the filter would leave of it is too little to be smoothed."""
    noise = np.random.default_rng(0).normal(0, 400, volume.shape)
    other = volume.copy(data=(100 + 10 * (volume.to_numpy() + noise)).astype(np.float32))
    sigmas = (0.5, 1.0, 2.0, 4.0)
    by_hand = [linear_fit(best_gaussian(other, volume, sigmas=(s,)), volume) for s in sigmas]
    errors = [pair_sums(f.to_numpy(), volume.to_numpy()).mse() for f in by_hand]
    result = best_gaussian(other, volume, sigmas=sigmas, fitted=True)
    assert result.attrs["sigma"] == sigmas[int(np.argmin(errors))]
    np.testing.assert_allclose(result.to_numpy(), by_hand[int(np.argmin(errors))].to_numpy(), rtol=1e-5)


def test_the_filter_leaves_channels_apart(volume):
    two = xr.concat([volume, xr.zeros_like(volume)], dim="channel").astype(np.float32)
    assert not best_gaussian(two, two, sigmas=(2.0,)).to_numpy()[1].any()


def test_a_sigma_of_zero_is_refused(volume):
    with pytest.raises(EvaluationError, match="above 0"):
        best_gaussian(volume, volume, sigmas=(0.0, 1.0))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(EvaluationError, match="NaN"):
        otsu_mask(xr.DataArray([[np.nan, 1.0]], dims=("y", "x")))


def test_a_watershed_parts_discs_that_touch_and_numbers_them():
    y, x = np.mgrid[:40, :60]
    discs = [(y - 20) ** 2 + (x - centre) ** 2 < 100 for centre in (15, 33)]
    crumb = (y < 2) & (x > 57)
    image = xr.DataArray(np.where(discs[0] | discs[1] | crumb, 100.0, 1.0), dims=("y", "x"))
    assert otsu_instances(image, smallest=10).max() == 1
    found = watershed_instances(image, smallest=10)
    assert found.dtype == np.int32
    target = image.copy(data=np.where(discs[0], 1, np.where(discs[1], 2, 0)))
    assert evaluate(found, target, "instance").metrics["ap@0.50"] == 1
    assert watershed_instances(image).max() == 3


def test_a_watershed_heeds_the_spacing_of_planes():
    z, y, x = np.mgrid[:9, :30, :30]
    balls = [4 * (z - 4) ** 2 + (y - 15) ** 2 + (x - centre) ** 2 < 64 for centre in (8, 21)]
    image = xr.DataArray((balls[0] | balls[1]) * 100.0, dims=("z", "y", "x"))
    assert watershed_instances(image, spacing=(2, 1, 1)).max() == 2


def test_a_watershed_of_a_constant_image_finds_nothing():
    assert not watershed_instances(xr.DataArray(np.ones((9, 9)), dims=("y", "x"))).to_numpy().any()
