"""`evaluate`: every figure of one prediction against one target, with their definitions. No files are read here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.core.finite_json import to_json
from im2im_zoo.evaluation import contingency, instance_evaluation, regression, semantic
from im2im_zoo.evaluation.alignment import Aligned, align, channel_names, without_variances
from im2im_zoo.evaluation.instance import THRESHOLDS

Task = Literal["regression", "semantic", "instance"]
TASKS: tuple[Task, ...] = get_args(Task)
Figures = Mapping[str, float]
_NONE: Mapping[str, Figures] = MappingProxyType({})


@dataclass(frozen=True)
class Evaluation:
    """The figures of a prediction, and what they mean.

    Attributes:
        task: what was compared.
        figures: name -> value, mean over channels (counts: sum). NaN is undefined and is left out of every mean.
        channels: channel or class name -> its figures; empty when there is only one.
        definitions: name -> what the figure is, for every name in `figures`.
        settings: what the figures depend on: threshold, data range ...
        notes: what was assumed.
        images: over how many images (pairs, and positions along batch, index or time) the mean was taken.
        per_image: name -> figures of each image and channel, of instances alone.
        sums: what the pooled figures are made of, likewise.
    """

    task: Task
    figures: Figures
    channels: Mapping[str, Figures] = field(default_factory=lambda: _NONE)
    definitions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    images: int = 1
    per_image: tuple[tuple[str, Figures], ...] = ()
    sums: tuple[instance_evaluation.Sums, ...] = ()

    def flat(self) -> dict[str, float]:
        """All figures in one mapping: "pearson" is the mean, "pearson[GFP]" that of one channel."""
        flat = dict(self.figures)
        for channel, figures in self.channels.items():
            flat |= {f"{name}[{channel}]": value for name, value in figures.items()}
        return flat

    def to_json(self) -> str:
        """Strict JSON. A figure that is undefined or infinite is null, and `not_finite` says which it was."""
        flat = self.flat()
        document = {
            "task": self.task,
            "images": self.images,
            "figures": self.figures,
            "channels": dict(self.channels),
            "per_image": [{"image": name, "figures": figures} for name, figures in self.per_image],
            "not_finite": {k: str(v) for k, v in flat.items() if not math.isfinite(v)},
            "settings": dict(self.settings),
            "definitions": dict(self.definitions),
            "notes": list(self.notes),
        }
        return to_json(document, indent=2, ensure_ascii=False)


def evaluate(
    prediction: xr.DataArray,
    target: xr.DataArray,
    task: Task,
    *,
    threshold: float = 0.5,
    data_range: float | None = None,
    classes: int | None = None,
    iou_thresholds: Sequence[float] = THRESHOLDS,
) -> Evaluation:
    """Compare a prediction with its target.

    Axes go by name: the prediction is transposed, axes of size 1 that one image lacks are dropped, and channels are
    paired by name where both have names in common, else by order. Figures are taken for each channel of each image
    (positions along batch, index and time are images), averaged over images, then over channels.

    Args:
        prediction, target: dims are axis names (im2im_zoo.core.axes); `coords["channel"]` and `attrs["pixel_size_um"]`
            are used if given.
        task: "regression": intensities. "semantic": masks; with class probabilities along the prediction's channel axis
            and a target of class numbers without one, or with `classes`, classes. "instance": object labels.
        threshold: semantic: a float prediction is foreground where it exceeds this. Integer and bool images are
            foreground where they are not 0.
        data_range: regression: L in PSNR, SSIM and NRMSE; default max - min of the target, per channel and image.
        classes: semantic: how many class numbers (0 is background) both integer images use.
        iou_thresholds: instance: thresholds for AP; 0.5 is always added.
    Raises:
        EvaluationError: images that cannot be compared, values that are not finite, an unknown task or a setting out of
            range.
    """
    if task not in TASKS:
        raise EvaluationError(f"task {task!r} is unknown: use one of {', '.join(TASKS)}")
    if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
        raise EvaluationError(f"data_range {data_range}: give a number above 0, or leave it out")
    if task == "regression":
        return _evaluate_regression(align(prediction, target), data_range)
    if task == "instance":
        return _evaluate_instance(align(prediction, target), iou_thresholds)
    classified = without_variances(prediction, target, [])
    probabilities = classified.sizes.get("channel", 1) > 1 and target.sizes.get("channel", 1) == 1
    if probabilities or classes is not None:
        return _evaluate_classes(prediction, target, classes, probabilities)
    return _evaluate_masks(align(prediction, target), threshold)


def mean_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of many images: the mean of each figure over images, counts summed; NaN is left out.

    Raises:
        EvaluationError: none given, or different tasks, settings or channels.
    """
    if not evaluations:
        raise EvaluationError("no evaluation to average: give at least one image pair")
    first = evaluations[0]
    for other in evaluations[1:]:
        for what in ("task", "settings"):
            if getattr(other, what) != getattr(first, what):
                raise EvaluationError(
                    f"{what} differ between images ({getattr(first, what)} and {getattr(other, what)}): "
                    "evaluate all images alike"
                )
        if list(other.channels) != list(first.channels):
            raise EvaluationError(
                f"channels differ between images ({', '.join(first.channels)} and {', '.join(other.channels)}): "
                "evaluate the same channels of all images"
            )
    weights = [e.images for e in evaluations]
    together = Evaluation(
        task=first.task,
        figures=_combine([_of_images(e.figures) for e in evaluations], weights),
        channels={c: _combine([e.channels[c] for e in evaluations], weights) for c in first.channels},
        definitions=first.definitions,
        settings=first.settings,
        notes=tuple(dict.fromkeys(note for e in evaluations for note in e.notes)),
        images=sum(weights),
        per_image=tuple(one for e in evaluations for one in e.per_image),
        sums=tuple(one for e in evaluations for one in e.sums),
    )
    return _with_pooled(together)


def _evaluate_regression(pair: Aligned, data_range: float | None) -> Evaluation:
    results: list[tuple[int, Figures]] = []
    for channel, p, t in pair.images():
        _require_finite(p, "prediction", pair.channels[channel])
        _require_finite(t, "target", pair.channels[channel])
        sums = regression.pair_sums(p, t)
        span = sums.target_range if data_range is None else data_range
        results.append(
            (
                channel,
                {
                    "pearson": sums.pearson(),
                    "ssim": regression.ssim(p, t, data_range=span),
                    "psnr": sums.psnr(span),
                    "mse": sums.mse(),
                    "mae": sums.mae(),
                    "nrmse": sums.nrmse(span),
                },
            )
        )
    span_text = (
        "max - min of the target, per channel and image" if data_range is None else f"{data_range:g} (given)"
    )
    return _assemble("regression", pair, results, regression.DEFINITIONS, {"data range L": span_text})


def _evaluate_masks(pair: Aligned, threshold: float) -> Evaluation:
    results: list[tuple[int, Figures]] = []
    for channel, p, t in pair.images():
        _require_finite(p, "prediction", pair.channels[channel])
        _require_finite(t, "target", pair.channels[channel])
        mask = p > threshold if p.dtype.kind == "f" else p > 0  # type: ignore[operator]
        results.append((channel, semantic.count_pixels(mask, t > 0).figures()))  # type: ignore[operator]
    rule = f"value > {threshold:g}" if pair.prediction.dtype.kind == "f" else "value > 0 (not a float image)"
    settings = {"prediction foreground": rule, "target foreground": "value > 0"}
    definitions = {k: semantic.DEFINITIONS[k] for k in ("dice", "iou", "precision", "recall")}
    return _assemble("semantic", pair, results, definitions, settings)


def _evaluate_classes(
    prediction: xr.DataArray, target: xr.DataArray, classes: int | None, probabilities: bool
) -> Evaluation:
    pair = align(prediction, target, match_channels=not probabilities)
    count = pair.prediction.sizes["channel"] if probabilities else classes
    if count is None or count < 2 or (classes is not None and classes != count):
        raise EvaluationError(
            f"classes {classes}: give at least 2, and as many as the prediction has channels "
            f"({prediction.sizes.get('channel', 1)}) when these are class probabilities"
        )
    _require_finite(pair.prediction.to_numpy(), "prediction", "all channels")
    settings = {
        "classes": f"{count}, 0 is background",
        "prediction class": "channel of the largest value (argmax)"
        if probabilities
        else "class number as given",
    }
    if probabilities:
        best = pair.prediction.to_numpy().argmax(axis=pair.prediction.dims.index("channel"))
        dims = [d for d in pair.prediction.dims if d != "channel"]
        target = pair.target.squeeze("channel") if "channel" in pair.target.dims else pair.target
        pair = Aligned(xr.DataArray(best, dims=dims).transpose(*target.dims), target, ("all",), pair.notes)
    per_image: list[Figures] = []
    per_class: list[dict[int, dict[str, float]]] = []
    for _, p, t in pair.images():
        matrix = semantic.confusion(
            contingency.as_labels(p, "prediction"), contingency.as_labels(t, "target"), count
        )
        per_class.append(semantic.class_figures(matrix))
        per_image.append(
            {**semantic.mean_class_figures(per_class[-1]), "accuracy": semantic.accuracy(matrix)}
        )
    named = without_variances(prediction, target, [])
    names = _class_names(named, count) if probabilities else [f"class {k}" for k in range(count)]
    definitions = {
        k: v if k == "accuracy" else f"{v} {semantic.CLASS_MEAN}" for k, v in semantic.DEFINITIONS.items()
    }
    return Evaluation(
        "semantic",
        _combine(per_image),
        {name: _combine([f[k] for f in per_class]) for k, name in enumerate(names)},
        definitions,
        settings,
        pair.notes,
        len(per_image),
    )


def _evaluate_instance(pair: Aligned, thresholds: Sequence[float]) -> Evaluation:
    levels = sorted({*map(float, thresholds), instance_evaluation.HALF})
    sums: list[tuple[int, str, instance_evaluation.Sums]] = [
        (place.get("channel", 0), name, instance_evaluation.sums_of(contingency.overlaps_of(p, t), levels))
        for place, name, p, t in pair.lazy_images()
    ]
    results = [(channel, instance_evaluation.figures_of(one)) for channel, _, one in sums]
    names = results[0][1] if results else {}
    definitions = {name: instance_evaluation.definition(name, levels) for name in names}
    settings = {"matching": "one to one, IoU at or above the threshold, most pairs first, then largest IoU"}
    made = _assemble("instance", pair, results, definitions, settings)
    return _with_pooled(
        replace(
            made,
            per_image=tuple((w, instance_evaluation.figures_of(s)) for _, w, s in sums),
            sums=tuple(s for _, _, s in sums),
        )
    )


def _with_pooled(made: Evaluation) -> Evaluation:
    """The evaluation with what its images give together, if they are several and sums of them are known."""
    pooled = instance_evaluation.pooled_figures(made.sums)
    levels = list(made.sums[0].matched) if made.sums else []
    said = {name: instance_evaluation.definition(name, levels) for name in pooled}
    return replace(
        made, figures={**_of_images(made.figures), **pooled}, definitions=dict(made.definitions) | said
    )


def _assemble(
    task: Task,
    pair: Aligned,
    results: Sequence[tuple[int, Figures]],
    definitions: Mapping[str, str],
    settings: Mapping[str, str],
) -> Evaluation:
    """Mean over the images of each channel, then over channels."""
    if not results:
        raise EvaluationError(f"the images are empty ({dict(pair.target.sizes)}): nothing can be compared")
    per_channel = {
        name: _combine([figures for c, figures in results if c == k]) for k, name in enumerate(pair.channels)
    }
    return Evaluation(
        task,
        _combine(list(per_channel.values())),
        per_channel if len(per_channel) > 1 else {},
        dict(definitions),
        dict(settings),
        pair.notes,
        len(results) // len(pair.channels),
    )


def _combine(figures: Sequence[Figures], weights: Sequence[int] | None = None) -> dict[str, float]:
    """Means (counts: sums) of the figures of several images or channels, without NaN."""
    shares = list(weights) if weights is not None else [1] * len(figures)
    combined: dict[str, float] = {}
    for name in figures[0] if figures else ():
        pairs = [(f[name], w) for f, w in zip(figures, shares, strict=True) if not math.isnan(f[name])]
        if instance_evaluation.is_count(name):
            combined[name] = math.fsum(v for v, _ in pairs)
        else:
            combined[name] = _weighted_mean(pairs)
    return combined


def _of_images(figures: Figures) -> Figures:
    return {k: v for k, v in figures.items() if not k.startswith(instance_evaluation.POOLED)}


def _weighted_mean(pairs: Iterable[tuple[float, int]]) -> float:
    pairs = list(pairs)
    if not pairs:
        return math.nan
    if any(math.isinf(v) for v, _ in pairs):
        return sum(v for v, _ in pairs)
    return math.fsum(v * w for v, w in pairs) / sum(w for _, w in pairs)


def _class_names(prediction: xr.DataArray, count: int) -> list[str]:
    names = channel_names(prediction)
    return list(names) if len(names) == count else [f"class {k}" for k in range(count)]


def _require_finite(values: NDArray[np.generic], name: str, channel: str) -> None:
    if values.dtype.kind != "f":
        return
    wrong = int(values.size - np.count_nonzero(np.isfinite(values)))
    if wrong:
        raise EvaluationError(
            f"{name}, {channel}: {wrong} of {values.size} values are NaN or infinite; "
            "no figure can be taken until they are replaced or cropped away"
        )
