"""Properties of a package's tensors from the sample images: dtypes, channel names, pixel sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from im2im_zoo.core.errors import PackageError
from im2im_zoo.packaging.export.rdf.content import DTYPES
from im2im_zoo.packaging.export.sample import Sample


def channel_names_of(given: Sequence[str] | None, image: Any, count: int, prefix: str) -> tuple[str, ...]:
    """Return the given channel names, else those of the image, else numbered ones.

    Raises:
        PackageError: the number of given names is not `count`.
    """
    if given is not None:
        if len(given) != count:
            raise PackageError(
                f"the recipe names {len(given)} channels for the {prefix} ({', '.join(given)}), but it has {count}: "
                f"correct `{prefix}.channels`"
            )
        return tuple(given)
    if "channel" in image.coords and image.sizes["channel"] == count:
        return tuple(str(c) for c in image.coords["channel"].to_numpy())
    return tuple(f"{prefix}{i}" for i in range(count))


def pixel_size_of(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the pixel size of the first sample that has one, in micrometres, to six digits."""
    known = (s.input.attrs.get("pixel_size_um") or {} for s in samples)
    return {axis: float(f"{size:.6g}") for axis, size in next((k for k in known if k), {}).items()}


def common_dtype(dtypes: Sequence[Any]) -> str:
    """Return the dtype of the format that holds all given ones; float32 if there is none."""
    name = np.result_type(*dtypes).name
    return name if name in DTYPES else "float32"


def result_dtype(dtype: Any) -> str:
    """Return the dtype of an output: its own if the format has it, float32 for float64 and others."""
    name = np.dtype(dtype).name
    return name if name in DTYPES and name != "float64" else "float32"
