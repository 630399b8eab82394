"""What the sample images say of a package's tensors: types, names of channels, pixel sizes. It measures no network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from im2im_zoo.core.errors import PackageError
from im2im_zoo.packaging.export.rdf.content import DTYPES
from im2im_zoo.packaging.export.sample import Sample


def channel_names_of(given: Sequence[str] | None, image: Any, count: int, prefix: str) -> tuple[str, ...]:
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
    """That of the first sample that has one, to six digits."""
    known = (s.input.attrs.get("pixel_size_um") or {} for s in samples)
    return {axis: float(f"{size:.6g}") for axis, size in next((k for k in known if k), {}).items()}


def common_dtype(dtypes: Sequence[Any]) -> str:
    name = np.result_type(*dtypes).name
    return name if name in DTYPES else "float32"


def result_dtype(dtype: Any) -> str:
    name = np.dtype(dtype).name
    return name if name in DTYPES and name != "float64" else "float32"
