import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from skimage.metrics import structural_similarity

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import regression
from im2im_zoo.evaluation.regression import pair_sums, ssim


def test_metrics_of_four_voxels_agree_with_the_sum_done_by_hand():
    target = np.array([0.0, 1.0, 2.0, 3.0])
    prediction = np.array([0.0, 1.0, 2.0, 5.0])
    assert pair_sums(prediction, target).mse() == 1.0  # 2² / 4
    assert pair_sums(prediction, target).mae() == 0.5
    assert pair_sums(prediction, target).psnr() == pytest.approx(10 * math.log10(9))  # L = 3
    assert pair_sums(prediction, target).psnr(255) == pytest.approx(48.1308036)
    assert pair_sums(prediction, target).nrmse() == pytest.approx(1 / 3)
    assert pair_sums(prediction, target).nrmse(10) == pytest.approx(0.1)
    # centred: t = -1.5 -.5 .5 1.5, p = -2 -1 0 3; sum tp = 8, sum t² = 5, sum p² = 14
    assert pair_sums(prediction, target).pearson() == pytest.approx(8 / math.sqrt(70))


def test_a_perfect_prediction_is_ideal(nuclei_2d):
    image, _ = nuclei_2d
    assert pair_sums(image, image).pearson() == pytest.approx(1, abs=1e-12)
    assert ssim(image, image) == pytest.approx(1)
    assert (
        pair_sums(image, image).mse() == pair_sums(image, image).mae() == pair_sums(image, image).nrmse() == 0
    )
    assert pair_sums(image, image).psnr() == math.inf


def test_integers_do_not_wrap_around():
    target, prediction = np.array([0, 200], np.uint8), np.array([200, 0], np.uint8)
    assert pair_sums(prediction, target).mae() == 200
    assert pair_sums(prediction, target).mse() == 40000
    assert pair_sums(prediction, target).pearson() == -1


def test_pearson_agrees_with_scipy_and_is_symmetric(nuclei_2d):
    image, labels = nuclei_2d
    expected = pearsonr(image.ravel().astype(float), labels.ravel().astype(float)).statistic
    assert pair_sums(labels, image).pearson() == pytest.approx(expected, rel=1e-10)
    assert pair_sums(image, labels).pearson() == pytest.approx(pair_sums(labels, image).pearson(), rel=1e-12)


def test_pearson_keeps_its_digits_on_a_large_offset():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(64, 64))
    b = a + rng.normal(size=(64, 64))
    assert pair_sums(a + 1e8, b - 1e8).pearson() == pytest.approx(pair_sums(a, b).pearson(), abs=1e-6)


def test_pearson_of_a_constant_image_is_undefined():
    assert math.isnan(pair_sums(np.full((4, 4), 0.1), np.arange(16.0).reshape(4, 4)).pearson())
    assert math.isnan(pair_sums(np.arange(16.0).reshape(4, 4), np.full((4, 4), 7)).pearson())


def test_range_metrics_of_a_constant_target_are_undefined_unless_the_range_is_given():
    target, prediction = np.zeros((16, 16)), np.ones((16, 16))
    assert math.isnan(pair_sums(prediction, target).psnr())
    assert math.isnan(pair_sums(prediction, target).nrmse())
    assert math.isnan(ssim(prediction, target))
    assert pair_sums(prediction, target).psnr(10) == pytest.approx(20)
    assert 0 < ssim(prediction, target, data_range=10) < 1


@given(st.integers(1, 39), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_sums_of_parts_add_up_to_the_sums_of_the_whole(cut, seed):
    rng = np.random.default_rng(seed)
    p, t = rng.normal(3, 2, (40, 5)), rng.normal(-100, 5, (40, 5))
    whole = pair_sums(p, t)
    parts = pair_sums(p[:cut], t[:cut]) + pair_sums(p[cut:], t[cut:])
    for name in ("count", "low_p", "high_p", "low_t", "high_t"):
        assert getattr(parts, name) == getattr(whole, name)
    assert parts.pearson() == pytest.approx(whole.pearson(), rel=1e-9, abs=1e-12)
    assert parts.mse() == pytest.approx(whole.mse(), rel=1e-12)
    assert parts.psnr() == pytest.approx(whole.psnr(), rel=1e-12)
    assert parts + regression.PairSums() == parts


def test_metrics_do_not_depend_on_the_size_of_the_blocks(nuclei_3d):
    image, _ = nuclei_3d
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape)
    whole = (pair_sums(noisy, image).pearson(), pair_sums(noisy, image).mse(), ssim(noisy, image))
    sums = regression.pair_sums(noisy, image, block_voxels=1000)
    parts = (sums.pearson(), sums.mse(), ssim(noisy, image, block_voxels=1000))
    assert parts == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("crop", [np.s_[:200, :133], np.s_[:11, :40]])
def test_ssim_agrees_with_skimage_under_the_settings_of_wang_2004(nuclei_2d, crop):
    image = nuclei_2d[0][crop].astype(float)
    noisy = image + np.random.default_rng(0).normal(0, 10, image.shape)
    expected = structural_similarity(
        noisy,
        image,
        data_range=image.max() - image.min(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(noisy, image) == pytest.approx(expected, rel=1e-10)


def test_ssim_of_two_flat_images_is_the_luminance_term():
    # no variance: SSIM = (2·1·3 + C1) / (1 + 9 + C1), C1 = (0.01·10)² = 0.01
    value = ssim(np.ones((12, 12)), np.full((12, 12), 3.0), data_range=10)
    assert value == pytest.approx(6.01 / 10.01)


def test_ssim_takes_few_planes_one_by_one(nuclei_3d):
    image = nuclei_3d[0][:4].astype(float)
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape)
    span = image.max() - image.min()
    planes = [ssim(p, t, data_range=span) for p, t in zip(noisy, image, strict=True)]
    assert ssim(noisy, image) == pytest.approx(np.mean(planes))
    assert ssim(np.moveaxis(noisy, 0, 1), np.moveaxis(image, 0, 1)) == pytest.approx(np.mean(planes))


def test_ssim_of_an_image_smaller_than_its_window_is_undefined():
    assert math.isnan(ssim(np.ones((10, 10)), np.eye(10)))


def test_different_shapes_are_refused_with_both_shapes():
    with pytest.raises(EvaluationError, match=r"\(2, 3\).*\(3, 2\)"):
        pair_sums(np.zeros((2, 3)), np.zeros((3, 2))).mse()
