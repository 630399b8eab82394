"""Fit operations to a whole image once; apply them to any part of it. The entry to `im2im_zoo.processing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import names, tensor_name
from im2im_zoo.processing.checkpoint import NOT_KEPT, Checkpoint
from im2im_zoo.processing.moments import mean_and_std
from im2im_zoo.processing.operations import Fitted, Requirement, Step, build_step, requirements
from im2im_zoo.processing.quantiles import quantiles
from im2im_zoo.processing.requirements import check_axes, check_operations, label
from im2im_zoo.processing.sources import Source

if TYPE_CHECKING:
    from im2im_zoo.processing.requirements import Operation

BLOCK_BYTES = 64 * 2**20

_NONE: Mapping[str, xr.DataArray] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Operations with every statistic known: a pure function of the image it was fitted to, or a part of it.

    A part has the same bits as the same part of the whole, if it is not cut along `whole_axes`, and carries
    integer coordinates (positions in the whole image) on cut axes along which statistics vary.
    """

    steps: tuple[Step, ...] = ()

    @property
    def whole_axes(self) -> frozenset[str]:
        """Axes along which voxels depend on each other, so that tiles must not cut them."""
        return frozenset[str]().union(*(step.whole_axes for step in self.steps))

    @property
    def is_pointwise(self) -> bool:
        """Whether tiles may be cut along every axis but channel."""
        return self.whole_axes <= {"channel"}

    def __call__(self, array: xr.DataArray) -> xr.DataArray:
        """The processed tensor: same axes, coordinates, name and attributes; `array` is not changed."""
        for step in self.steps:
            array = step(array)
        return array


def fit(
    operations: Sequence[Operation],
    image: xr.DataArray,
    *,
    references: Mapping[str, xr.DataArray] = _NONE,
    dataset: Sequence[xr.DataArray] | None = None,
    allow_code: bool = False,
    root: Path | None = None,
    block_bytes: int = BLOCK_BYTES,
    measured: MutableMapping[str, Any] | None = None,
    checkpoints: Callable[[str], Checkpoint] = lambda _: NOT_KEPT,
) -> Pipeline:
    """Bind the operations to one image, with their statistics over all of it.

    The statistics of each operation are of what the operations before it make. Each operation that needs any
    reads the image once (percentiles of 32-bit data twice, of 64-bit four times) in blocks.

    Args:
        operations: in order, as described in a recipe or an RDF.
        image: the whole tensor, lazy; axes are the spec's ids; needs no batch axis.
        references: raw tensors by id, for operations with a `reference_tensor`.
        dataset: images whose statistics operations take that name no axes, or `batch` among them
            (default: `image` alone).
        allow_code: consent to run the Python of `custom` operations that are not ours.
        root: the folder in which the source of `custom` operations that are not ours lies.
        block_bytes: bound on the memory for statistics, without what the file's reader takes to decode; 2 MiB is the
            least that a histogram of 32-bit data needs.
        measured: the statistics of an earlier fit of the same operations to the same image, as JSON values, which are not
            taken again; what is taken is put there.
        checkpoints: gives what keeps a walk over the image, by the key of its statistics in `measured`.

    Raises:
        ProcessingError: an operation that cannot be done here, or values without statistics (NaN, infinity).
    """
    check_operations(operations, names(image))
    of_dataset = any(want.of_dataset for op in operations for want in requirements(op))
    own = _Track(image)
    others = [_Track(i) for i in dataset] if dataset is not None and of_dataset else [own]
    if not others:
        raise ProcessingError("the dataset has no images to take statistics of: give some, or None")
    tracks = [own] + [track for track in others if track is not own]
    for number, operation in enumerate(operations, 1):
        where = label(number, operation)
        try:
            _check_references(operation, references, dataset)
            wants = requirements(operation)
            known = _Known(measured, number, checkpoints)
            shared = {
                want: known.or_measured(want, others, references, block_bytes)
                for want in wants
                if want.of_dataset
            }
            for track in tracks:
                kept = known if track is own else _Known(None, number)
                values = [
                    shared.get(w) or kept.or_measured(w, [track], references, block_bytes) for w in wants
                ]
                statistics = [array for arrays in values for array in arrays]
                track.add(_step(operation, statistics, track.image, allow_code, root))
            if operation.id == "custom" and any(requirements(op) for op in operations[number:]):
                for track in tracks:
                    track.materialise()
        except ProcessingError as error:
            raise ProcessingError(f"{where}: {error}") from error
    return Pipeline(tuple(own.steps))


@dataclass(slots=True)
class _Track:
    """One image on its way through the operations: `pending` makes the current tensor of `image`."""

    image: xr.DataArray
    steps: list[Step] = field(default_factory=list)
    pending: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.pending.append(step)

    def materialise(self) -> None:
        """Make the tensor now: a custom operation takes the whole of it, so blocks cannot be had any more."""
        self.image = Pipeline(tuple(self.pending))(self.image)
        self.pending = []

    def source(self) -> Source:
        made = Pipeline(tuple(self.pending))
        return Source(self.image, made, made.whole_axes)


@dataclass(frozen=True, slots=True)
class _Known:
    """The statistics of one operation that were taken before, and are kept."""

    measured: MutableMapping[str, Any] | None
    number: int
    checkpoints: Callable[[str], Checkpoint] = lambda _: NOT_KEPT

    def or_measured(
        self,
        want: Requirement,
        tracks: Sequence[_Track],
        references: Mapping[str, xr.DataArray],
        block_bytes: int,
    ) -> tuple[xr.DataArray, ...]:
        key = f"{self.number}: {want}"
        if self.measured is None:
            return _measure(want, tracks, references, block_bytes, self.checkpoints(key))
        if key not in self.measured:
            found = _measure(want, tracks, references, block_bytes, self.checkpoints(key))
            self.measured[key] = [a.to_dict() for a in found]
        return tuple(xr.DataArray.from_dict(plain) for plain in self.measured[key])


def _step(
    operation: Operation,
    statistics: Sequence[xr.DataArray],
    image: xr.DataArray,
    allow_code: bool,
    root: Path | None,
) -> Step:
    if image.dtype.kind not in "buif":
        raise ProcessingError(
            f"tensor {tensor_name(image)} has dtype {image.dtype}: only real numbers can be processed"
        )
    return build_step(operation, Fitted(image, statistics, allow_code, root))


def _check_references(
    operation: Operation, references: Mapping[str, xr.DataArray], dataset: Sequence[xr.DataArray] | None
) -> None:
    for want in requirements(operation):
        if want.reference is None:
            continue
        if want.reference not in references:
            raise ProcessingError(
                f"its reference tensor {want.reference!r} is not there; there are {sorted(references)}"
            )
        if want.of_dataset and dataset is not None:
            raise ProcessingError(
                f"statistics of reference tensor {want.reference!r} over a dataset are not known: name the axes "
                "without 'batch' to take them of each sample"
            )
        check_axes(f"reference tensor {want.reference!r}", want.axes or (), names(references[want.reference]))


def _measure(
    want: Requirement,
    tracks: Sequence[_Track],
    references: Mapping[str, xr.DataArray],
    block_bytes: int,
    checkpoint: Checkpoint,
) -> tuple[xr.DataArray, ...]:
    if want.reference is not None:
        sources = [Source(references[want.reference], Pipeline())]
    else:
        sources = [track.source() for track in tracks]
    axes = names(sources[0].image)
    reduced = [a for a in axes if want.axes is None or a in want.axes]
    if want.reference is not None:
        _check_kept_axes(want, sources[0].image, reduced, tracks[0].image)
    if not want.fractions:
        return mean_and_std(sources, reduced, block_bytes=block_bytes, checkpoint=checkpoint)
    return quantiles(
        sources,
        reduced,
        want.fractions,
        method=want.method,
        block_bytes=block_bytes,
        checkpoint=checkpoint,
    )


def _check_kept_axes(
    want: Requirement, reference: xr.DataArray, reduced: Sequence[str], image: xr.DataArray
) -> None:
    """Statistics of a reference that vary along an axis must vary along the same axis of the tensor."""
    for axis in names(reference):
        if axis not in reduced and image.sizes.get(axis) != reference.sizes[axis]:
            raise ProcessingError(
                f"statistics of reference tensor {want.reference!r} {dict(reference.sizes)} vary along axis {axis!r}, "
                f"which does not fit tensor {tensor_name(image)} {dict(image.sizes)}: name {axis!r} among its axes"
            )
