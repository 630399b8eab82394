import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import semantic
from im2im_zoo.evaluation.semantic import PixelCounts, confusion, count_pixels, dice

MASKS = arrays(bool, (3, 7))


def test_metrics_of_five_pixels_agree_with_the_count_done_by_hand():
    prediction, target = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert count_pixels(prediction, target) == PixelCounts(tp=2, fp=1, fn=1, tn=1)
    assert dice(prediction, target) == pytest.approx(4 / 6)
    assert count_pixels(prediction, target).metrics()["iou"] == pytest.approx(2 / 4)
    assert count_pixels(prediction, target).metrics()["precision"] == pytest.approx(2 / 3)
    assert count_pixels(prediction, target).metrics()["recall"] == pytest.approx(2 / 3)


@given(MASKS, MASKS)
def test_dice_is_the_harmonic_mean_of_precision_and_recall_and_follows_from_iou(p, t):
    d, j, pr, re = count_pixels(p, t).metrics().values()
    assert d == pytest.approx(2 * j / (1 + j))
    assert d == pytest.approx(2 * pr * re / (pr + re) if pr + re else 0)


@given(MASKS, MASKS)
def test_dice_and_iou_are_symmetric_and_precision_is_recall_the_other_way_round(p, t):
    assert dice(p, t) == dice(t, p)
    assert count_pixels(p, t).metrics()["iou"] == count_pixels(t, p).metrics()["iou"]
    assert count_pixels(p, t).metrics()["precision"] == count_pixels(t, p).metrics()["recall"]


@given(MASKS)
def test_a_perfect_mask_is_ideal_even_when_empty(mask):
    assert set(count_pixels(mask, mask).metrics().values()) == {1}


def test_one_empty_mask_gives_zero():
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    for metrics in (count_pixels(empty, full).metrics(), count_pixels(full, empty).metrics()):
        assert set(metrics.values()) == {0.0}


@given(MASKS, MASKS, st.integers(0, 3))
def test_counts_of_parts_add_up(p, t, cut):
    assert count_pixels(p[:cut], t[:cut]) + count_pixels(p[cut:], t[cut:]) == count_pixels(p, t)


def test_confusion_has_target_rows_and_prediction_columns():
    matrix = confusion(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert semantic.accuracy(matrix) == 0.5
    assert semantic.class_counts(matrix, 2) == PixelCounts(tp=1, fp=1, fn=1, tn=1)
    assert semantic.class_metrics(matrix)[2]["dice"] == 0.5


def test_a_class_in_neither_image_is_left_out_of_the_mean_as_is_the_background():
    metrics = semantic.class_metrics(confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 3))
    assert math.isnan(metrics[2]["dice"])
    assert semantic.mean_class_metrics(metrics)["dice"] == pytest.approx(2 / 3)


def test_background_alone_is_ideal():
    metrics = semantic.class_metrics(confusion(np.zeros(4, int), np.zeros(4, int), 3))
    assert semantic.mean_class_metrics(metrics)["iou"] == 1


def test_a_class_number_out_of_range_is_refused():
    with pytest.raises(EvaluationError, match=r"target holds classes from 0 to 255.*3 classes"):
        confusion(np.zeros(2, int), np.array([0, 255]), 3)
