"""Find the class of an operation by the spec's id: it is in the module of that name in this folder, imported when needed."""

import functools
import importlib
from collections.abc import Sequence
from typing import Any

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.subclasses import subclasses_in
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation, Requirement, Step


@functools.cache
def find_operation(operation_id: str) -> type[ProcessingOperation[Any]] | None:
    """Return the class of an operation; None if there is none."""
    found = subclasses_in(importlib.import_module(__package__), ProcessingOperation, operation_id)
    return next((c for c in found if getattr(c, "id", None) == operation_id), None)


def operation_class(description: Any) -> type[ProcessingOperation[Any]]:
    """Return the class of a description.

    Raises:
        ProcessingError: there is no such operation.
    """
    found = find_operation(str(description.id))
    if found is None:
        raise ProcessingError(f"the operation {description.id!r} is not implemented; update im2im_zoo")
    return found


def requirements(description: Any) -> tuple[Requirement, ...]:
    """Return the statistics that an operation needs, in the order in which it takes them; none of an unknown one."""
    found = find_operation(str(description.id))
    return () if found is None else found.requirements(description)


def whole_axes(description: Any, axes: Sequence[str]) -> frozenset[str]:
    """Return which axes of a tensor an operation mixes voxels along, so that tiles must not cut them.

    Args:
        description: of the operation, as the spec has it.
        axes: of the tensor.
    """
    found = find_operation(str(description.id))
    return frozenset() if found is None else found.whole_axes(description, axes)


def build_step(description: Any, fitted: Fitted) -> Step:
    """Return an operation, ready to run.

    Raises:
        ProcessingError: an unknown operation, or numbers that do not fit the image's axes.
    """
    found = operation_class(description)
    axes = [str(axis) for axis in fitted.image.dims]
    bound = found.bind(description, fitted)
    return Step(found.id, bound.apply, found.whole_axes(description, axes))
