"""Labels that the page's watershed is tested with, from the Python implementation: `python tests/web/label_cases.py` writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from im2im_zoo.instances.methods.watershed import group

FILE = Path(__file__).parents[2] / "web" / "test" / "labels.json"
_KWARGS: dict[str, dict[str, Any]] = {
    "of the inside": {"seed_threshold": 0.7, "foreground_threshold": 0.3},
    "with boundaries": {"channel": 1, "seed_threshold": 0.6, "foreground_threshold": 0.2, "boundary": 2},
    "of affinities": {"affinities": 0, "seed_threshold": 0.6, "foreground_threshold": 0.4},
    "without small objects": {"seed_threshold": 0.7, "foreground_threshold": 0.3, "min_size": 40},
    "without seeds": {"seed_threshold": 2.0, "foreground_threshold": 0.3},
}


def _maps(levels: int, seed: int) -> NDArray[np.float32]:
    """Return three smooth maps (channel, y, x) of values in 0..1; of few levels, so that many heights are equal."""
    noise = np.random.default_rng(seed).random((3, 31, 37))
    smooth = np.stack([gaussian_filter(channel, 1.5) for channel in noise])
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return (np.round((smooth - low) / (high - low) * levels) / levels).astype(np.float32)


def label_cases() -> list[dict[str, Any]]:
    """Return maps as whole numbers of levels, arguments, and labels."""
    found = []
    for number, (name, kwargs) in enumerate(_KWARGS.items()):
        for levels in (12, 1024):
            maps = _maps(levels, number)
            case = {
                "name": f"{name}, {levels} levels",
                "kwargs": kwargs,
                "shape": list(maps.shape),
                "levels": levels,
                "maps": np.round(maps * levels).astype(int).ravel().tolist(),
                "labels": group(maps, **kwargs).ravel().tolist(),
            }
            found.append(case)
    return found


if __name__ == "__main__":
    FILE.write_text(
        "[\n" + ",\n".join(json.dumps(case) for case in label_cases()) + "\n]\n", encoding="utf-8"
    )
