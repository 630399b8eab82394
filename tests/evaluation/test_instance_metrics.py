import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from metrics_for_tests import average_precision, instance_metrics
from scipy.optimize import linear_sum_assignment

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.contingency import overlaps
from im2im_zoo.evaluation.instance import THRESHOLDS, match

LABELS = arrays(np.uint8, (3, 6), elements=st.integers(0, 4))


def iou_table(p, t):
    """IoU of every true (row) with every predicted object, object by object."""
    true, predicted = np.unique(t[t > 0]), np.unique(p[p > 0])
    table = np.zeros((len(true), len(predicted)))
    for i, a in enumerate(true):
        for j, b in enumerate(predicted):
            table[i, j] = np.sum((t == a) & (p == b)) / np.sum((t == a) | (p == b))
    return table


def best_by_trying_all(table, threshold):
    """(pairs, summed IoU) of the best one-to-one matching, by enumeration."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    n, m = table.shape
    best = (0, 0.0)
    for size in range(1, n + 1):
        for rows in combinations(range(n), size):
            for columns in permutations(range(m), size):
                values = table[rows, columns]
                if (values >= threshold).all():
                    best = max(best, (size, float(values.sum())))
    return best


def test_counts_of_a_row_of_pixels_agree_with_the_count_done_by_hand():
    target = np.array([1, 1, 1, 1, 0, 2, 2, 0, 3])
    prediction = np.array([7, 7, 7, 0, 0, 0, 5, 5, 0])
    # 1-7: IoU 3/4; 2-5: IoU 1/3; 3: missed
    half = match(overlaps(prediction, target), 0.5)
    assert (half.tp, half.fp, half.fn) == (1, 1, 2)
    assert half.pairs.tolist() == [[1, 7]]
    metrics = instance_metrics(prediction, target)
    assert metrics["ap@0.50"] == pytest.approx(1 / 4)
    assert metrics["f1@0.50"] == pytest.approx(2 / 5)
    assert metrics["precision@0.50"] == pytest.approx(1 / 2)
    assert metrics["recall@0.50"] == pytest.approx(1 / 3)
    assert metrics["matched_iou@0.50"] == pytest.approx(3 / 4)
    assert metrics["panoptic_quality@0.50"] == pytest.approx(0.75 / 2.5)
    third = match(overlaps(prediction, target), 0.3)
    assert (third.tp, third.fp, third.fn) == (2, 0, 1)


def test_one_to_one_holds_where_two_halves_both_reach_the_threshold():
    whole, halves = np.array([1, 1]), np.array([1, 2])
    for prediction, target in ((whole, halves), (halves, whole)):
        half = match(overlaps(prediction, target), 0.5)
        assert half.tp == 1
        assert half.fp + half.fn == 1


def test_more_pairs_go_before_a_larger_iou():
    # A touches 1 (IoU 0.5) and 2; B touches only 1. Greedy by IoU would leave B alone.
    target = np.array([1] * 6 + [2] * 2)
    prediction = np.array([2] * 2 + [1] * 6)
    found = overlaps(prediction, target)
    assert match(found, 0.2).tp == 2
    assert match(found, 0.45).tp == 1


@given(LABELS, LABELS, st.sampled_from([0.05, 0.1, 0.2, 1 / 3, 0.5, 0.6, 0.9, 1.0]))
@settings(max_examples=150, deadline=None)
def test_sparse_matching_is_the_best_of_all_matchings(p, t, threshold):
    found = overlaps(p, t)
    result = match(found, threshold)
    pairs, total = best_by_trying_all(iou_table(p, t), threshold)
    assert result.tp == pairs
    assert result.iou.sum() == pytest.approx(total)
    assert (result.tp + result.fn, result.tp + result.fp) == (
        len(set(t[t > 0].tolist())),
        len(set(p[p > 0].tolist())),
    )
    assert len({a for a, _ in result.pairs}) == len({b for _, b in result.pairs}) == result.tp


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7])
def test_sparse_matching_agrees_with_a_dense_assignment_on_real_nuclei(nuclei_2d, threshold):
    target = nuclei_2d[1][:256, :256]
    prediction = np.roll(target, (2, 1), axis=(0, 1))
    table = iou_table(prediction, target)
    count = min(table.shape)
    cost = -(table >= threshold).astype(float) - np.where(table >= threshold, table, 0) / (2 * count)
    rows, columns = linear_sum_assignment(cost)
    reached = table[rows, columns] >= threshold
    result = match(overlaps(prediction, target), threshold)
    assert 0 < result.tp == reached.sum()
    assert result.iou.sum() == pytest.approx(table[rows, columns][reached].sum())


@given(LABELS, LABELS)
@settings(max_examples=50, deadline=None)
def test_overlaps_agree_with_a_table_filled_object_by_object(p, t):
    found = overlaps(p, t)
    table = np.zeros((len(found.ids_t), len(found.ids_p)))
    table[found.rows, found.columns] = found.iou
    np.testing.assert_allclose(table, iou_table(p, t))
    assert found.total_p == np.count_nonzero(p)
    assert found.shared == np.count_nonzero((p > 0) & (t > 0))


@given(LABELS, LABELS, st.permutations([9, 250, 1, 2**40, 77]))
@settings(max_examples=50, deadline=None)
def test_ap_does_not_change_when_objects_are_renumbered(p, t, names):
    renumbered = np.array([0, *names])[p.astype(int)]
    assert average_precision(renumbered, t) == average_precision(p, t)


@given(LABELS, LABELS)
@settings(max_examples=50, deadline=None)
def test_ap_is_symmetric_and_falls_with_the_threshold(p, t):
    ap = average_precision(p, t)
    assert ap == average_precision(t, p)
    values = [ap[threshold] for threshold in THRESHOLDS]
    assert values == sorted(values, reverse=True)


def test_thresholds_are_those_of_dsb_2018():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_perfect_labels_are_ideal(nuclei_3d):
    labels = nuclei_3d[1]
    assert set(average_precision(labels, labels).values()) == {1.0}


def test_no_objects_on_both_sides_is_ideal_and_on_one_side_is_zero():
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    names = ("ap@0.50", "f1@0.50", "precision@0.50", "recall@0.50", "panoptic_quality@0.50")
    nothing = instance_metrics(empty, empty)
    assert [nothing[name] for name in names] == [1] * 5
    assert math.isnan(nothing["matched_iou@0.50"])
    for prediction, target in ((empty, full), (full, empty)):
        one = instance_metrics(prediction, target)
        assert [one[name] for name in names] == [0] * 5


def test_many_objects_cost_no_table_of_all_pairs():
    # 40 000 objects a side: a dense table of float64 would take 12.8 GB
    grid = np.repeat(np.repeat(np.arange(1, 40001).reshape(200, 200), 5, 0), 5, 1)
    result = match(overlaps(np.roll(grid, 1, axis=1), grid), 0.5)
    assert result.tp == 40000
    chained = match(overlaps(np.roll(grid, 1, axis=1), grid), 0.1)  # each object touches two
    assert chained.tp == 40000


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([[0.0, 0.5]]), "whole numbers.*0.5.*semantic"),
        (np.array([[0.0, np.nan]]), "nan"),
        (np.array([[0.0, np.inf]]), "inf"),
        (np.array([[0, -1]]), "label -1.*background"),
        (np.array([[0, 1j]]), "complex128"),
    ],
)
def test_what_is_no_label_is_refused(labels, says):
    with pytest.raises(EvaluationError, match=f"prediction.*{says}"):
        overlaps(labels, np.zeros((1, 2), int))


def test_whole_floats_and_masks_are_labels():
    target = np.array([[0, 1, 1]])
    assert instance_metrics(target.astype(np.float32), target.astype(bool))["ap@0.50"] == 1


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01])
def test_a_threshold_outside_is_refused(threshold):
    with pytest.raises(EvaluationError, match="IoU threshold"):
        match(overlaps(np.ones((1, 1), int), np.ones((1, 1), int)), threshold)
