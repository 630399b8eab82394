"""Comparison of a package's metrics with those of trivial methods, to warn of a model that is hardly usable."""

import math

from im2im_zoo.packaging.export.rdf.content import Metrics

# The metric that decides, the first that was measured; of all, more is better.
_DECISIVE = {
    "mean_ap": "mean AP",
    "ap@0.50": "AP at IoU 0.5",
    "dice": "Dice",
    "pearson": "Pearson correlation",
}


def compare_with_baselines(metrics: Metrics) -> str | None:
    """Return a sentence that says so if a model is not better than a trivial method on the held-out images; else None.

    Baselines are named `METHOD METRIC`. The decisive metric is the mean AP of instances, Dice of masks, and the Pearson correlation of
    intensities, which a wrong scale does not change. A metric that is undefined, as of a constant output, is worse than any.

    Example:
        >>> compare_with_baselines(Metrics({"dice": 0.4}, {"Otsu dice": 0.8}))
        'This model is not better than Otsu on the held-out images (Dice 0.4 against 0.8).'
    """
    name = next((key for key in _DECISIVE if key in metrics.values), None)
    if name is None:
        return None
    suffix = f" {name}"
    found = {
        key.removesuffix(suffix): value
        for key, value in metrics.baselines.items()
        if key.endswith(suffix) and math.isfinite(value)
    }
    own = metrics.values[name]
    if not found or own > max(found.values()):
        return None
    method = max(found, key=lambda key: found[key])
    shown = f"{own:.3g}" if math.isfinite(own) else "undefined"
    return f"This model is not better than {method} on the held-out images ({_DECISIVE[name]} {shown} against {found[method]:.3g})."
