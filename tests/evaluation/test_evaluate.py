import json
import math

import numpy as np
import pytest
import xarray as xr
from metrics_for_tests import average_precision

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import evaluate, mean_evaluation, otsu_mask
from im2im_zoo.evaluation.baselines import otsu_instances
from im2im_zoo.evaluation.regression import pair_sums, ssim


def image(values, dims, channels=None, pixel=None):
    coords = {"channel": channels} if channels else {}
    return xr.DataArray(
        np.asarray(values), dims=dims, coords=coords, attrs={"pixel_size_um": pixel} if pixel else {}
    )


@pytest.fixture(scope="module")
def noisy(nuclei_2d):
    truth = nuclei_2d[0][:64, :80].astype(np.float32)
    return truth + np.random.default_rng(0).normal(0, 10, truth.shape).astype(np.float32), truth


def test_axes_are_aligned_by_name(noisy):
    p, t = noisy
    plain = evaluate(image(p, ("y", "x")), image(t, ("y", "x")), "regression")
    turned = evaluate(
        image(p.T[None, :, :, None], ("z", "x", "y", "channel")), image(t, ("y", "x")), "regression"
    )
    assert turned.metrics == pytest.approx(plain.metrics)
    other = evaluate(image(p, ("y", "x")), image(t[None, None], ("batch", "channel", "y", "x")), "regression")
    assert other.metrics == pytest.approx(plain.metrics)
    assert plain.channels == {}
    assert set(plain.definitions) == set(plain.metrics)


def test_channels_are_matched_by_name_when_both_are_named(noisy):
    p, t = noisy
    prediction = image(np.stack([p, -t]), ("channel", "y", "x"), ["dna", "actin"])
    target = image(np.stack([t, t + 1, t]), ("channel", "y", "x"), ["actin", "extra", "dna"])
    result = evaluate(prediction, target, "regression")
    assert list(result.channels) == ["actin", "dna"]
    assert result.channels["actin"]["pearson"] == pytest.approx(-1)
    assert result.channels["dna"]["pearson"] == pytest.approx(pair_sums(p, t).pearson())
    assert result.metrics["pearson"] == pytest.approx((pair_sums(p, t).pearson() - 1) / 2)
    assert any("extra" in note for note in result.notes)
    assert result.flat()["pearson[actin]"] == result.channels["actin"]["pearson"]


def test_a_channel_that_says_how_sure_another_is_is_left_out_and_said_to_be(noisy):
    p, t = noisy
    prediction = image(np.stack([p, abs(p)]), ("channel", "y", "x"), ["dna", "dna variance"])
    result = evaluate(prediction, image(t, ("y", "x")), "regression")
    assert result.metrics["pearson"] == pytest.approx(pair_sums(p, t).pearson())
    assert result.notes == ("variance channels were not compared: dna variance",)
    both = image(np.stack([t, t]), ("channel", "y", "x"), ["dna", "dna variance"])
    assert set(evaluate(prediction, both, "regression").channels) == {"dna", "dna variance"}


def test_a_probability_and_its_variance_are_no_two_classes(noisy):
    mask = noisy[1] > noisy[1].mean()
    with_variance = np.stack([np.where(mask, 0.6, 0.4), np.ones_like(mask) * 0.9])
    prediction = image(with_variance, ("channel", "y", "x"), ["nucleus", "nucleus_variance"])
    assert evaluate(prediction, image(mask, ("y", "x")), "semantic").metrics["dice"] == 1


def test_one_named_channel_finds_its_target_among_several(noisy):
    p, t = noisy
    target = image(np.stack([np.zeros_like(t), t]), ("channel", "y", "x"), ["dna", "actin"])
    result = evaluate(image(p[None], ("channel", "y", "x"), ["actin"]), target, "regression")
    assert result.metrics["ssim"] == pytest.approx(ssim(p, t))


def test_channels_go_by_order_when_one_side_has_no_names(noisy):
    p, t = noisy
    prediction = image(np.stack([p, -t]), ("channel", "y", "x"))
    target = image(np.stack([t, t]), ("channel", "y", "x"), ["a", "b"])
    result = evaluate(prediction, target, "regression")
    assert result.channels["b"]["pearson"] == pytest.approx(-1)
    assert result.notes == ()


def test_other_names_are_paired_by_order_and_said_so(noisy):
    p, t = noisy
    both = image(np.stack([p, p]), ("channel", "y", "x"), ["out0", "out1"])
    result = evaluate(both, image(np.stack([t, t]), ("channel", "y", "x"), ["a", "b"]), "regression")
    assert "by order" in result.notes[0]


def test_a_channel_without_a_target_is_refused(noisy):
    _, t = noisy
    two = np.stack([t, t])
    with pytest.raises(EvaluationError, match="no target for actin"):
        evaluate(
            image(two, ("channel", "y", "x"), ["dna", "actin"]),
            image(two, ("channel", "y", "x"), ["dna", "golgi"]),
            "regression",
        )


def test_different_sizes_are_refused_with_axes_sizes_and_pixel_sizes():
    a = image(np.zeros((2, 4, 5)), ("z", "y", "x"), pixel={"y": 0.5, "x": 0.5})
    b = image(np.zeros((8, 10)), ("y", "x"), pixel={"y": 0.25, "x": 0.25})
    with pytest.raises(EvaluationError, match=r"z=2 y=4 x=5.*y=8 x=10.*y=0.5 µm.*y=0.25 µm"):
        evaluate(a, b, "regression")


def test_equal_sizes_of_other_pixels_are_noted(noisy):
    p, t = noisy
    result = evaluate(
        image(p, ("y", "x"), pixel={"x": 0.5}), image(t, ("y", "x"), pixel={"x": 0.2}), "regression"
    )
    assert "pixel sizes differ" in result.notes[0]


def test_time_points_are_images_of_their_own(nuclei_2d):
    labels = nuclei_2d[1][:128, :128]
    frames = np.stack([labels, np.zeros_like(labels)])
    dims = ("time", "y", "x")
    result = evaluate(image(np.stack([labels, labels]), dims), image(frames, dims), "instance")
    assert result.images == 2
    assert result.metrics["ap@0.50"] == 0.5
    assert result.metrics["tp@0.50"] == result.metrics["fp@0.50"] == len(np.unique(labels)) - 1


@pytest.mark.parametrize("task", ["regression", "semantic", "instance"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(task, value):
    bad = np.ones((4, 4), np.float32)
    bad[1, 2] = value
    good = image(np.ones((4, 4), np.float32), ("y", "x"))
    with pytest.raises(EvaluationError, match="prediction"):
        evaluate(image(bad, ("y", "x")), good, task)
    with pytest.raises(EvaluationError, match="target"):
        evaluate(good, image(bad, ("y", "x")), task)


def test_a_float_mask_is_cut_at_the_threshold_and_that_is_said():
    target = image([[0, 7, 7, 0]], ("y", "x"))
    prediction = image([[0.1, 0.6, 0.8, 0.7]], ("y", "x"))
    result = evaluate(prediction, target, "semantic")
    assert result.metrics["dice"] == pytest.approx(4 / 5)
    assert result.settings["prediction foreground"] == "value > 0.5"
    higher = evaluate(prediction, target, "semantic", threshold=0.75)
    assert higher.metrics["precision"] == 1
    assert higher.metrics["recall"] == 0.5


def test_an_integer_mask_of_255_is_foreground():
    result = evaluate(
        image(np.array([[0, 255]], np.uint8), ("y", "x")), image([[False, True]], ("y", "x")), "semantic"
    )
    assert result.metrics["iou"] == 1
    assert "not a float" in result.settings["prediction foreground"]


def test_class_probabilities_are_compared_with_class_numbers():
    target = image([[0, 1, 2, 2]], ("y", "x"))
    scores = np.array([[[0.8, 0.3, 0.1, 0.2]], [[0.1, 0.4, 0.2, 0.6]], [[0.1, 0.3, 0.7, 0.2]]])
    prediction = image(scores, ("channel", "y", "x"), ["background", "nucleus", "mitosis"])
    result = evaluate(prediction, target, "semantic")
    assert result.channels["mitosis"]["recall"] == 0.5
    assert result.channels["nucleus"]["precision"] == 0.5
    assert result.metrics["accuracy"] == 0.75
    assert result.metrics["dice"] == pytest.approx(2 / 3)  # background left out
    with_axis = evaluate(prediction.transpose("y", "x", "channel"), target.expand_dims("channel"), "semantic")
    assert with_axis.metrics == result.metrics
    numbers = image(scores.argmax(0), ("y", "x"))
    assert evaluate(numbers, target, "semantic", classes=3).metrics == result.metrics


def test_more_labels_than_classes_are_refused():
    prediction = image(np.zeros((2, 1, 3)), ("channel", "y", "x"))
    with pytest.raises(EvaluationError, match=r"target holds classes from 0 to 9.*2 classes"):
        evaluate(prediction, image([[0, 1, 9]], ("y", "x")), "semantic")


def test_instance_metrics_of_real_nuclei_agree_with_the_metric_alone(nuclei_2d):
    raw, labels = nuclei_2d
    prediction = otsu_instances(image(raw, ("y", "x")), smallest=20)
    result = evaluate(prediction, image(labels, ("y", "x")), "instance")
    expected = average_precision(prediction.to_numpy(), labels)
    assert {k: v for k, v in result.metrics.items() if k.startswith("ap@")} == {
        f"ap@{k:.2f}": v for k, v in expected.items()
    }
    assert result.metrics["mean_ap"] == pytest.approx(np.mean(list(expected.values())))
    assert result.metrics["objects_true"] == len(np.unique(labels)) - 1
    mask = evaluate(prediction, image(labels, ("y", "x")), "semantic")
    assert result.metrics["foreground_dice"] == mask.metrics["dice"]
    assert set(result.definitions) == set(result.metrics)


def test_probabilities_are_no_instances():
    with pytest.raises(EvaluationError, match=r"whole numbers.*semantic"):
        evaluate(image([[0.3, 0.9]], ("y", "x")), image([[0, 1]], ("y", "x")), "instance")


def test_json_is_strict_and_says_what_is_not_finite(noisy):
    _, t = noisy
    result = evaluate(image(t, ("y", "x")), image(t, ("y", "x")), "regression")
    document = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert document["figures"]["psnr"] is None
    assert document["not_finite"] == {"psnr": "inf"}
    assert document["figures"]["mse"] == 0
    assert document["definitions"]["psnr"].startswith("Peak")
    assert document["settings"]["data range L"].startswith("max - min")


def test_the_data_range_changes_psnr_and_is_said(noisy):
    p, t = noisy
    given = evaluate(image(p, ("y", "x")), image(t, ("y", "x")), "regression", data_range=255)
    assert given.metrics["psnr"] == pytest.approx(10 * math.log10(255**2 / given.metrics["mse"]))
    assert "255" in given.settings["data range L"]


def test_the_mean_over_images_weighs_each_image_once():
    dims = ("y", "x")
    first = evaluate(image([[1, 1]], dims), image([[1, 1]], dims), "instance")
    second = evaluate(image([[1, 2]], dims), image([[0, 3]], dims), "instance")
    mean = mean_evaluation([first, second])
    assert mean.metrics["ap@0.50"] == pytest.approx((1 + 0.5) / 2)
    assert mean.metrics["tp@0.50"] == 2
    assert mean.metrics["objects_predicted"] == 3
    assert mean.images == 2
    three = mean_evaluation([mean, second])
    assert three.metrics["ap@0.50"] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_an_undefined_figure_is_left_out_of_the_mean_over_images():
    dims = ("y", "x")
    flat = evaluate(image([[1, 1]], dims), image([[1, 2]], dims), "regression")
    good = evaluate(image([[1, 2]], dims), image([[1, 2]], dims), "regression")
    assert math.isnan(flat.metrics["pearson"])
    assert mean_evaluation([flat, good]).metrics["pearson"] == pytest.approx(1)


def test_images_evaluated_in_different_ways_are_not_averaged():
    dims = ("y", "x")
    a, b = image([[0.0, 1.0]], dims), image([[0, 1]], dims)
    with pytest.raises(EvaluationError, match="settings differ"):
        mean_evaluation([evaluate(a, b, "semantic", threshold=t) for t in (0.2, 0.5)])
    with pytest.raises(EvaluationError, match="at least one"):
        mean_evaluation([])


def test_an_unknown_task_names_the_known_ones():
    a = image([[0, 1]], ("y", "x"))
    with pytest.raises(EvaluationError, match="regression, semantic, instance"):
        evaluate(a, a, "detection")


def test_a_data_range_of_zero_is_refused():
    a = image([[0, 1]], ("y", "x"))
    with pytest.raises(EvaluationError, match="data_range 0"):
        evaluate(a, a, "regression", data_range=0)


def test_empty_images_are_refused():
    a = image(np.zeros((0, 4, 4)), ("time", "y", "x"))
    with pytest.raises(EvaluationError, match="empty"):
        evaluate(a, a, "regression")


def test_otsu_on_real_nuclei_beats_an_empty_mask(nuclei_2d):
    raw, labels = (image(a, ("y", "x")) for a in nuclei_2d)
    assert evaluate(otsu_mask(raw), labels, "semantic").metrics["dice"] > 0.8
    assert evaluate(xr.zeros_like(raw), labels, "semantic").metrics["dice"] == 0


@pytest.mark.parametrize("task", ["regression", "semantic", "instance"])
def test_images_without_voxels_are_refused(task):
    empty = image(np.zeros((0, 5), np.uint8), ("y", "x"))
    with pytest.raises(EvaluationError, match="is empty"):
        evaluate(empty, empty, task)
