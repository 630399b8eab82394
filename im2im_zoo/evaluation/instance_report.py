"""Report of an instance evaluation: its metrics, and pictures of matched, missed, split and merged objects.

Pictures are of windows of one plane, those with the most wrong objects; the states are those of the whole objects.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from im2im_zoo.evaluation.alignment import align
from im2im_zoo.evaluation.comparison import Evaluation
from im2im_zoo.evaluation.contingency import as_labels, overlaps_of
from im2im_zoo.evaluation.object_states import ObjectStates, object_states
from im2im_zoo.evaluation.panels import Panel
from im2im_zoo.evaluation.report import Report, Sample, format_metric, headlines, metric_label
from im2im_zoo.processing.blocks import regions

WINDOW = 384  # pixels of a picture's sides, at most
_HEADLINES = ("ap@0.50", "f1@0.50", "panoptic_quality@0.50", "aggregated_jaccard")
_SHOWN = ("ap@0.50", "f1@0.50", "aggregated_jaccard", "splits", "merges", "objects_predicted", "objects_true")
# Rows of the table of images; more would make the page unreadable.
_MOST_ROWS = 200


def instance_report(title: str, evaluation: Evaluation, samples: Sequence[Sample]) -> Report:
    """Return the report of an instance evaluation, with samples of `worst_windows`."""
    rows = {
        name: ", ".join(f"{metric_label(k)} {format_metric(k, metrics[k])}" for k in _SHOWN if k in metrics)
        for name, metrics in evaluation.per_image[:_MOST_ROWS]
    }
    left = len(evaluation.per_image) - len(rows)
    return Report(
        title=title,
        summary="Instance segmentation against the truth, object by object.",
        headlines=headlines(
            {"prediction": evaluation}, tuple(n for n in _HEADLINES if n in evaluation.metrics)
        ),
        samples=tuple(samples),
        evaluations={"prediction": evaluation},
        facts={"Images": rows} if len(rows) > 1 else {},
        notes=(f"{left} more images are in the metrics and not in this table",) if left > 0 else (),
    )


def worst_windows(
    prediction: xr.DataArray, target: xr.DataArray, image: xr.DataArray | None = None, *, most: int = 4
) -> list[Sample]:
    """Return pictures of the windows with the most wrong objects; the first window if none is wrong.

    Args:
        prediction, target: label images, lazy or not; see `evaluate`.
        image: image that was segmented, with the same space axes; None shows none.
        most: number of windows, at most.

    Raises:
        EvaluationError: see `evaluate`.
    """
    found: list[tuple[int, int, _Window]] = []
    for place, name, p, t in align(prediction, target).lazy_images():
        states = object_states(overlaps_of(p, t))
        sides = {str(a): -(-n // -(-n // WINDOW)) if a in ("y", "x") else 1 for a, n in p.sizes.items()}
        for region in regions({str(a): n for a, n in p.sizes.items()}, sides):
            labels = as_labels(p.isel(region).to_numpy(), name), as_labels(t.isel(region).to_numpy(), name)
            # The number decides between equals, so that no images are compared.
            window = _Window(name, place, region, p, t, states)
            found.append((states.count_wrong(*labels), -len(found), window))
    best = heapq.nlargest(most, found, key=lambda one: one[:2])
    kept = [one for one in best if one[0]] or best[:1]
    return [_sample(window, image) for _, _, window in kept]


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Window of one image of a pair: `place` along the other axes, `region` along its own."""

    name: str
    place: Mapping[str, int]
    region: Mapping[str, slice]
    prediction: xr.DataArray
    target: xr.DataArray
    states: ObjectStates


def _sample(window: _Window, image: xr.DataArray | None) -> Sample:
    region, prediction, target, states = window.region, window.prediction, window.target, window.states
    attrs = {
        "pixel_size_um": prediction.attrs.get("pixel_size_um") or target.attrs.get("pixel_size_um") or {}
    }
    p, t = (xr.DataArray(a.isel(region).to_numpy(), dims=a.dims, attrs=attrs) for a in (prediction, target))
    panels = [
        Panel("true objects", t, kind="labels"),
        Panel("predicted objects", p, kind="labels"),
        Panel("comparison", p, kind="matches", target=t, states=states),
    ]
    if image is not None:
        kept = {a: region[a] for a in region if a in image.dims}
        places = {a: n for a, n in window.place.items() if a in image.dims and a != "channel"}
        here = image.isel(kept | places)
        panels.insert(0, Panel("image", here.assign_attrs(attrs).load(), view="max"))
    where = ", ".join(
        f"{a} {r.start}" if a == "z" else f"{a} {r.start} to {r.stop}" for a, r in region.items()
    )
    matched, false, missed, split, merged = states.counts
    note = f"In the whole image {matched} objects are matched, {false} predicted have no match, {missed} are missed; {split} are split, {merged} merge others."
    return Sample(f"{window.name}: {where}", tuple(panels), note)
