"""Check operations against the axes of a tensor, and find what statistics they need. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.operations import operation_class, requirements

Operation: TypeAlias = v0_5.PreprocessingDescr | v0_5.PostprocessingDescr
"""Any pre- or postprocessing operation of the spec; the spec's own class is the only description of it."""

# Instance segmentation on whole maps, which `instances/library` does last; no steps of a pipeline.
_GROUPINGS = {"stardist_postprocessing", "cellpose_flow_dynamics"}


def needs_statistics(operations: Sequence[Operation]) -> bool:
    """Return whether any of them needs a pass over the image (or a reference, or the dataset) before it can run."""
    return any(requirements(operation) for operation in operations)


def passes(operations: Sequence[Operation], dtype: np.dtype[Any]) -> int:
    """Return how often an image of this dtype is read for the statistics of operations; `quantiles` reads it once per 16 bits."""
    count, size = 0, dtype.itemsize
    for operation in operations:
        for want in requirements(operation):
            count += max(1, size // 2) if want.fractions else 1
        given = getattr(getattr(operation, "kwargs", None), "dtype", None)
        size = 4 if given is None else np.dtype(str(given)).itemsize
    return count


def check_operations(operations: Sequence[Operation], axes: Sequence[str]) -> None:
    """Refuse operations that cannot be done on a tensor with these axes, before any image is read.

    Raises:
        ProcessingError: naming the operation, by its number from 1 and its id, and the axis.
    """
    for number, operation in enumerate(operations, 1):
        where = label(number, operation)
        if operation.id in _GROUPINGS:
            raise ProcessingError(
                f"{where}: makes labels of whole maps, so it can only be the last operation of a package's output; in a recipe, name "
                "a grouping (`output.grouping`) instead"
            )
        axis = getattr(getattr(operation, "kwargs", None), "axis", None)
        check_axes(where, () if axis is None else (str(axis),), axes)
        for want in requirements(operation):
            if want.axes is not None and not want.axes:
                raise ProcessingError(f"{where}: its axes are an empty list; name the axes to take together")
            if want.reference is None:
                check_axes(where, want.axes or (), axes)
        try:
            operation_class(operation).check(operation)
        except ProcessingError as error:
            raise ProcessingError(f"{where}: {error}") from error


def check_axes(where: str, wanted: Sequence[str], axes: Sequence[str]) -> None:
    """Refuse a wanted axis that is not one of `axes`; `batch` is never missing, since images do not have it.

    Raises:
        ProcessingError: naming the axis.
    """
    missing = [a for a in wanted if a != "batch" and a not in axes]
    if missing:
        raise ProcessingError(
            f"{where}: axis {', '.join(map(repr, missing))} is not an axis of the tensor, which has "
            f"{', '.join(map(repr, axes))}; name one of those"
        )


def label(number: int, operation: Operation) -> str:
    """Return how errors name an operation."""
    return f"operation {number} ({operation.id})"
