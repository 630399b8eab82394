"""Aggregated Jaccard, splits and merges on worked examples; counting in parts; pooled metrics; the report."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_for_tests import instance_metrics

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import evaluate, instance_report, mean_evaluation, worst_windows, write_report
from im2im_zoo.evaluation.contingency import Contingency, Overlaps, overlaps, overlaps_of
from im2im_zoo.evaluation.instance import aggregated_jaccard_sums, match, merges, splits
from im2im_zoo.evaluation.object_states import FALSE, MATCHED, MERGED, MISSED, SPLIT, object_states
from im2im_zoo.images import open_image, write_image

ROW = tuple[list[int], list[int]]


def of_row(true: list[int], predicted: list[int]) -> Overlaps:
    return overlaps(np.array(predicted), np.array(true))


def yx(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(np.atleast_2d(values), dims=("y", "x"))


def aji_by_its_definition(true: np.ndarray, predicted: np.ndarray) -> float:
    """Kumar et al. 2017, algorithm 1, voxel by voxel."""
    common = union = 0
    used = set()
    for i in np.unique(true[true > 0]):
        best, best_iou = None, 0.0
        for j in np.unique(predicted[predicted > 0]):
            both, either = ((true == i) & (predicted == j)).sum(), ((true == i) | (predicted == j)).sum()
            if both / either > best_iou:
                best, best_iou = j, both / either
        if best is None:
            union += (true == i).sum()
            continue
        common += ((true == i) & (predicted == best)).sum()
        union += ((true == i) | (predicted == best)).sum()
        used.add(best)
    union += sum((predicted == j).sum() for j in np.unique(predicted[predicted > 0]) if j not in used)
    return common / union if union else 1.0


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    top = draw(st.integers(1, 6))
    true = rng.integers(0, top + 1, shape)
    moved = np.where(rng.random(shape) < draw(st.floats(0, 1)), rng.integers(0, top + 1, shape), true)
    return true * draw(st.sampled_from([1, 2**25])), moved


@settings(max_examples=60)
@given(pair=pairs())
def test_aggregated_jaccard_is_that_of_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    common, union = aggregated_jaccard_sums(overlaps(pair[1], pair[0]))
    assert (common / union if union else 1.0) == pytest.approx(aji_by_its_definition(*pair))


@settings(max_examples=60)
@given(pair=pairs(), part=st.integers(1, 200))
def test_counting_in_parts_changes_nothing(pair: tuple[np.ndarray, np.ndarray], part: int) -> None:
    whole, parts = overlaps(pair[1], pair[0]), overlaps_of(yx(pair[1]), yx(pair[0]), part=part)
    for name in Overlaps.__slots__:
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)


@pytest.mark.parametrize(
    ("true", "predicted", "split", "merged"),
    [
        ([1] * 8, [1] * 4 + [2] * 4, 1, 0),
        ([1] * 4 + [2] * 4, [1] * 8, 0, 1),
        ([1] * 12, [1] * 11 + [2], 0, 0),  # a crumb of less than a tenth
        ([1] * 10, [1] * 9 + [2], 1, 0),
        ([1, 1, 1, 0, 0, 0], [1, 1, 2, 2, 2, 2], 0, 0),  # the second lies mostly beside it
        ([1, 1, 2, 2, 3, 3], [5] * 6, 0, 1),
        ([1] * 4 + [2] * 4, [1] * 4 + [2] * 4, 0, 0),
        ([0] * 4, [0] * 4, 0, 0),
    ],
)
def test_splits_and_merges_of_worked_examples(
    true: list[int], predicted: list[int], split: int, merged: int
) -> None:
    found = of_row(true, predicted)
    assert (len(splits(found).wholes), len(merges(found).wholes)) == (split, merged)


@settings(max_examples=30)
@given(pair=pairs())
def test_merges_are_the_splits_of_the_images_exchanged(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = merges(overlaps(pair[1], pair[0])), splits(overlaps(pair[0], pair[1]))
    np.testing.assert_array_equal(one.wholes, other.wholes)
    assert {tuple(p) for p in one.pairs.tolist()} == {tuple(p) for p in other.pairs.tolist()}


def test_panoptic_quality_is_segmentation_times_recognition_quality() -> None:
    true, predicted = np.array([1, 1, 1, 1, 2, 2, 0, 3]), np.array([1, 1, 1, 0, 2, 2, 4, 0])
    metrics = evaluate(yx(predicted), yx(true), "instance").metrics
    assert metrics["matched_iou@0.50"] == pytest.approx((0.75 + 1) / 2)
    assert metrics["f1@0.50"] == pytest.approx(4 / 6)
    assert metrics["panoptic_quality@0.50"] == pytest.approx(metrics["matched_iou@0.50"] * metrics["f1@0.50"])
    assert metrics["aggregated_jaccard"] == pytest.approx(5 / (4 + 2 + 1 + 1))


def test_pooled_metrics_are_of_the_counts_of_all_images() -> None:
    right, wrong = np.array([1, 1, 0, 2, 2]), np.array([0, 0, 0, 0, 3])
    results = [evaluate(yx(p), yx(t), "instance") for p, t in ((right, right), (wrong, right[:5] * 0 + 1))]
    both = mean_evaluation(results)
    assert both.metrics["ap@0.50"] == pytest.approx((1 + 0) / 2)
    assert both.metrics["pooled_ap@0.50"] == pytest.approx(2 / (2 + 1 + 1))
    assert both.metrics["tp@0.50"] == 2
    assert [f["ap@0.50"] for _, f in both.per_image] == [1, 0]
    assert "all images together" in both.definitions["pooled_ap@0.50"]
    again = mean_evaluation([both, results[0]])
    assert again.metrics["pooled_ap@0.50"] == pytest.approx(4 / (4 + 1 + 1))
    assert len(json.loads(again.to_json())["per_image"]) == 3


def test_positions_of_one_file_are_images_with_names() -> None:
    labels = xr.DataArray(np.ones((2, 3, 3), int), dims=("time", "y", "x"), attrs={"source": "folder/a.tif"})
    result = evaluate(labels, labels, "instance")
    assert [name for name, _ in result.per_image] == ["a.tif, time 0", "a.tif, time 1"]
    assert result.metrics["pooled_aggregated_jaccard"] == 1


@pytest.mark.parametrize(
    ("true", "predicted", "value"), [([0], [0], 1), ([0, 1], [0, 0], 0), ([0, 0], [0, 1], 0)]
)
def test_images_without_objects_get_metrics(true: list[int], predicted: list[int], value: float) -> None:
    metrics = evaluate(yx(np.array(predicted)), yx(np.array(true)), "instance").metrics
    for name in ("ap@0.50", "f1@0.50", "panoptic_quality@0.50", "aggregated_jaccard"):
        assert metrics[name] == value
    assert math.isnan(metrics["matched_iou@0.50"])


def test_fractions_are_no_labels() -> None:
    with pytest.raises(EvaluationError, match=r"prediction: instance labels must be whole numbers.*0\.5"):
        evaluate(yx(np.array([0.5, 1])), yx(np.array([0, 1])), "instance")


def test_a_picture_tells_the_states_of_objects_apart() -> None:
    true = np.array([1, 1, 0, 2, 2, 0, 3, 3, 4, 4, 0, 0, 5, 5, 5, 5])
    predicted = np.array([1, 1, 0, 0, 0, 0, 6, 6, 6, 6, 0, 7, 8, 8, 9, 9])
    states = object_states(overlaps(predicted, true))
    painted = states.paint(predicted, true)
    assert (
        painted.tolist() == [MATCHED] * 2 + [0] + [MISSED] * 2 + [0] + [MERGED] * 4 + [0, FALSE] + [SPLIT] * 4
    )
    assert states.counts[3:] == (1, 1)


def test_the_report_shows_the_windows_where_most_is_wrong(
    nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, labels = (
        xr.DataArray(a, dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}}) for a in nuclei_2d
    )
    predicted = labels.copy()
    predicted[400:, 400:] = 0
    for name, one in {"t": labels, "p": predicted}.items():
        write_image(one, tmp_path / f"{name}.ome.zarr", labels=True)
    pair = open_image(tmp_path / "p.ome.zarr"), open_image(tmp_path / "t.ome.zarr")
    (sample,) = worst_windows(*pair, image, most=1)
    assert sample.title == "p.ome.zarr: y 256 to 512, x 256 to 512"
    assert [p.title for p in sample.panels] == ["image", "true objects", "predicted objects", "comparison"]
    path = write_report(tmp_path / "r.html", instance_report("Nuclei", evaluate(*pair, "instance"), [sample]))
    text = path.read_text()
    assert all(
        word in text
        for word in ("split", "merged", "missed (FN)", "Aggregated Jaccard AJI", "data:image/png")
    )
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.skipif(
    importlib.util.find_spec("stardist") is None,
    reason="stardist is not installed: pip install 'im2im_zoo[stardist]'",
)
@settings(max_examples=40)
@given(pair=pairs(), threshold=st.sampled_from([0.3, 0.5, 0.55, 0.75, 0.95]))
def test_counts_are_those_of_stardist(pair: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    from stardist.matching import matching

    true, predicted = pair
    theirs, ours = matching(true, predicted, thresh=threshold), match(overlaps(predicted, true), threshold)
    metrics = instance_metrics(predicted, true, [threshold])
    assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
    if ours.tp + ours.fp + ours.fn:
        assert metrics[f"ap@{threshold:.2f}"] == pytest.approx(theirs.accuracy)
        if threshold == 0.5:
            assert metrics["panoptic_quality@0.50"] == pytest.approx(theirs.panoptic_quality)


def test_many_small_parts_are_added_up() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 50, 2000), rng.integers(0, 50, 2000)
    counted = Contingency()
    for start in range(0, 2000, 7):
        counted.add(predicted[start : start + 7], true[start : start + 7])
    np.testing.assert_array_equal(counted.overlaps().common, overlaps(predicted, true).common)
