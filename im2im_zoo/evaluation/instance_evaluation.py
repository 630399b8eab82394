"""Instance metrics of single images and of all images pooled, from sums that can be added over images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from im2im_zoo.evaluation import instance, semantic
from im2im_zoo.evaluation.contingency import Overlaps

HALF = 0.5
_AT = f"@{HALF:.2f}"
POOLED = "pooled_"
_POOLED_NOTE = "Of the counts of all images together: "


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums that can be added over images.

    Attributes:
        objects_p, objects_t: numbers of predicted and of true objects.
        matched: threshold -> matched objects.
        matched_iou: sum of the IoU of the pairs matched at 0.5.
        common, union: of the aggregated Jaccard index.
        splits, merges: numbers of splits and of merges.
        pixels: foreground voxels of both images, of the prediction only, and of the target only.
    """

    objects_p: int
    objects_t: int
    matched: Mapping[float, int]
    matched_iou: float
    common: int
    union: int
    splits: int
    merges: int
    pixels: tuple[int, int, int]

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums of both together; the thresholds are the same."""
        return Sums(
            self.objects_p + other.objects_p,
            self.objects_t + other.objects_t,
            {level: n + other.matched[level] for level, n in self.matched.items()},
            self.matched_iou + other.matched_iou,
            self.common + other.common,
            self.union + other.union,
            self.splits + other.splits,
            self.merges + other.merges,
            (
                self.pixels[0] + other.pixels[0],
                self.pixels[1] + other.pixels[1],
                self.pixels[2] + other.pixels[2],
            ),
        )


def sums_of(found: Overlaps, thresholds: Iterable[float]) -> Sums:
    """Return the sums of one image, always with threshold 0.5."""
    matchings = {level: instance.match(found, level) for level in sorted({*map(float, thresholds), HALF})}
    common, union = instance.aggregated_jaccard_sums(found)
    return Sums(
        objects_p=len(found.ids_p),
        objects_t=len(found.ids_t),
        matched={level: m.tp for level, m in matchings.items()},
        matched_iou=float(matchings[HALF].iou.sum()),
        common=common,
        union=union,
        splits=len(instance.splits(found).wholes),
        merges=len(instance.merges(found).wholes),
        pixels=(found.shared, found.total_p - found.shared, found.total_t - found.shared),
    )


def metrics_of(sums: Sums) -> dict[str, float]:
    """Return AP at each threshold and their mean; F1, precision, recall, quality and counts at 0.5; AJI, splits, merges, foreground."""
    tp, p, t = sums.matched[HALF], sums.objects_p, sums.objects_t
    ap = {level: _share(n, p + t - n) for level, n in sums.matched.items()}
    foreground = semantic.PixelCounts(*sums.pixels).metrics()
    return {
        "mean_ap": float(np.mean(list(ap.values()))),
        **{f"ap@{level:.2f}": value for level, value in ap.items()},
        f"f1{_AT}": _share(2 * tp, p + t),
        f"precision{_AT}": _share(tp, p) if p else float(t == 0),
        f"recall{_AT}": _share(tp, t) if t else float(p == 0),
        f"matched_iou{_AT}": sums.matched_iou / tp if tp else math.nan,
        f"panoptic_quality{_AT}": _share(2 * sums.matched_iou, p + t),
        "aggregated_jaccard": _share(sums.common, sums.union),
        f"tp{_AT}": float(tp),
        f"fp{_AT}": float(p - tp),
        f"fn{_AT}": float(t - tp),
        "splits": float(sums.splits),
        "merges": float(sums.merges),
        "objects_predicted": float(p),
        "objects_true": float(t),
        "foreground_dice": foreground["dice"],
        "foreground_iou": foreground["iou"],
    }


def pooled_metrics(sums: Sequence[Sums]) -> dict[str, float]:
    """Return the metrics of all images pooled, as `pooled_NAME`, without counts, which are sums already."""
    if len(sums) < 2:
        return {}
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return {f"{POOLED}{name}": value for name, value in metrics_of(total).items() if not is_count(name)}


def is_count(name: str) -> bool:
    """Return whether a metric is summed over images and channels, not averaged."""
    return name.startswith(("tp@", "fp@", "fn@", "objects_", "splits", "merges"))


def definition(name: str, thresholds: Sequence[float]) -> str:
    """Return the definition of a metric as a sentence."""
    if name.startswith(POOLED):
        return _POOLED_NOTE + definition(name.removeprefix(POOLED), thresholds)
    if name == "mean_ap":
        return f"Mean of AP over the IoU thresholds {', '.join(f'{v:.2f}' for v in thresholds)}."
    return instance.DEFINITIONS[name.partition("@")[0]]


def _share(part: float, whole: float) -> float:
    """Return part / whole; 1 if both are 0."""
    return part / whole if whole else 1.0
