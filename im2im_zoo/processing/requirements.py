"""Which statistics an operation needs, and whether it can be done on given axes at all. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.quantiles import QuantileMethod

Operation: TypeAlias = (
    v0_5.BinarizeDescr
    | v0_5.CellposeFlowDynamicsDescr
    | v0_5.ClipDescr
    | v0_5.CustomProcessingDescr
    | v0_5.EnsureDtypeDescr
    | v0_5.FixedZeroMeanUnitVarianceDescr
    | v0_5.ScaleLinearDescr
    | v0_5.ScaleMeanVarianceDescr
    | v0_5.ScaleRangeDescr
    | v0_5.SigmoidDescr
    | v0_5.SoftmaxDescr
    | v0_5.StardistPostprocessingDescr
    | v0_5.ZeroMeanUnitVarianceDescr
)
"""Any pre- or postprocessing operation of the spec; the spec's own class is the only description of it."""

# Done last, on the whole of a package's maps (`library_grouping`); they are no steps of a pipeline.
_GROUPINGS = {"stardist_postprocessing", "cellpose_flow_dynamics"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """Statistics over `axes` (None: all) of the tensor, or of the raw tensor `reference`.

    `fractions`: the quantiles (0 to 1); empty for mean and standard deviation.
    """

    axes: tuple[str, ...] | None
    fractions: tuple[float, ...] = ()
    method: QuantileMethod = "linear"
    reference: str | None = None

    @property
    def of_dataset(self) -> bool:
        """The spec: statistics cover the dataset where `batch` is among the axes, or axes are left out."""
        return self.axes is None or "batch" in self.axes


def requirements(operation: Operation) -> tuple[Requirement, ...]:
    """The statistics that `operation` needs, in the order its step takes them."""
    if isinstance(operation, v0_5.ClipDescr):
        percentiles = (operation.kwargs.min_percentile, operation.kwargs.max_percentile)
        fractions = tuple(p / 100 for p in percentiles if p is not None)
        axes = _axes(operation.kwargs.axes)
        if not fractions:
            return ()
        # As bioimageio.core: a clip of a sample ends on values that occur in it, of a dataset in between.
        want = Requirement(axes, fractions)
        return (want if want.of_dataset else Requirement(axes, fractions, "inverted_cdf"),)
    if isinstance(operation, v0_5.ZeroMeanUnitVarianceDescr):
        return (Requirement(_axes(operation.kwargs.axes)),)
    if isinstance(operation, v0_5.ScaleRangeDescr):
        scale = operation.kwargs
        fractions = (scale.min_percentile / 100, scale.max_percentile / 100)
        reference = None if scale.reference_tensor is None else str(scale.reference_tensor)
        return (Requirement(_axes(scale.axes), fractions, reference=reference),)
    if isinstance(operation, v0_5.ScaleMeanVarianceDescr):
        axes = _axes(operation.kwargs.axes)
        return Requirement(axes), Requirement(axes, reference=str(operation.kwargs.reference_tensor))
    return ()


def needs_statistics(operations: Sequence[Operation]) -> bool:
    """Whether any of them needs a pass over the image (or a reference, or the dataset) before it can run."""
    return any(requirements(operation) for operation in operations)


def passes(operations: Sequence[Operation], dtype: np.dtype[Any]) -> int:
    """How often an image of this dtype is read for the statistics of operations; see `quantiles` for those of percentiles."""
    count, size = 0, dtype.itemsize
    for operation in operations:
        for want in requirements(operation):
            count += max(1, size // 2) if want.fractions else 1
        given = getattr(getattr(operation, "kwargs", None), "dtype", None)
        size = 4 if given is None else np.dtype(str(given)).itemsize
    return count


def check_operations(operations: Sequence[Operation], axes: Sequence[str]) -> None:
    """Refuse what cannot be done on a tensor with these axes, before any image is read.

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
        if isinstance(operation, v0_5.ClipDescr):
            _check_clip(where, operation.kwargs)


def check_axes(where: str, wanted: Sequence[str], axes: Sequence[str]) -> None:
    """Every wanted axis but `batch` (which images do not have) must be one of `axes`."""
    missing = [a for a in wanted if a != "batch" and a not in axes]
    if missing:
        raise ProcessingError(
            f"{where}: axis {', '.join(map(repr, missing))} is not an axis of the tensor, which has "
            f"{', '.join(map(repr, axes))}; name one of those"
        )


def label(number: int, operation: Operation) -> str:
    """How errors name an operation."""
    return f"operation {number} ({operation.id})"


def _axes(axes: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if axes is None else tuple(str(a) for a in axes)


def _check_clip(where: str, kwargs: v0_5.ClipKwargs) -> None:
    pairs = ((kwargs.min, kwargs.max), (kwargs.min_percentile, kwargs.max_percentile))
    for low, high in pairs:
        if low is not None and high is not None and low >= high:
            raise ProcessingError(
                f"{where}: its lower limit {low} is not below its upper limit {high}; swap them"
            )
