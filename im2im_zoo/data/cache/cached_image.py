"""One image and its preprocessed file in the cache, whose name is a hash of everything that its values depend on."""

import functools
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from im2im_zoo.core.atomic import move_into_place, sync, write_text
from im2im_zoo.core.errors import FULL, DataError, ProcessingError
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.cache.cache_folder import create_locked_file
from im2im_zoo.data.cache.stored import LazyPreprocessedImage, convert_to_float32
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.images.flat_file import RegionFile
from im2im_zoo.processing import Operation, Pipeline, fit
from im2im_zoo.processing.blocks import walk
from im2im_zoo.processing.custom_code import code_sha256
from im2im_zoo.processing.operations import requirements
from im2im_zoo.recipe import Recipe

# Bump when the same image, axes and operations give other values.
_FORMAT = 1
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """A raw, lazy image of one side of a pair.

    Attributes:
        identity: changes with any change of its file.
        array: lazy.
        side: input, target or cost.
        partner: the input of a target or a cost map, if there is one.
    """

    identity: str
    array: xr.DataArray
    side: Side
    partner: "SourceImage | None" = None

    @property
    def source(self) -> "SourceImage | None":
        """The input whose statistics an operation may refer to; None if there is none."""
        return self if self.side == "input" else self.partner


@dataclass(frozen=True, slots=True, eq=False)
class ImagePlan:
    """An image, the operations to apply, and the file of the result."""

    image: SourceImage
    operations: Sequence[Operation]
    file: Path


def plan_image(
    image: SourceImage,
    training: Sequence[SourceImage],
    recipe: Recipe,
    folder: Path,
    root: Path | None = None,
) -> ImagePlan:
    """Plan the preprocessing of an image and its file, which is the same for the same values.

    Args:
        image: to be preprocessed.
        training: all training images of its side, for statistics of the dataset.
        recipe: has the operations in `input` and `target`; a cost map is not preprocessed.
        folder: of the cache.
        root: folder of the sources of `custom` operations that are not im2im_zoo's.

    Raises:
        DataError: an operation refers to the input of the image, and there is none; or the file of a custom operation is
            missing.
    """
    operations: Sequence[Operation] = (
        () if image.side == "cost" else getattr(recipe, image.side).preprocessing
    )
    wants = [want for operation in operations for want in requirements(operation)]
    by_source = any(want.reference for want in wants)
    if by_source and image.source is None:
        raise DataError(
            f"{image.side}.preprocessing refers to the input of a pair, but with data.pairing: unpaired "
            "there is none; use the statistics of the image itself"
        )
    parts = {
        "format": _FORMAT,
        "version": _find_version(),
        "image": image.identity,
        "axes": recipe.input.axes,
        "file_axes": getattr(recipe.data, f"{image.side}_axes"),
        "channels": getattr(recipe.data, f"{image.side}_channels"),
        "operations": [operation.model_dump(mode="json") for operation in operations],
        "reference": image.source.identity if by_source and image.source else None,
        "dataset": [other.identity for other in training] if any(w.of_dataset for w in wants) else None,
    }
    try:
        code = [code_sha256(operation, root) for operation in operations if operation.id == "custom"]
    except ProcessingError as error:
        raise DataError(f"{image.side}.preprocessing: {error}") from error
    if code:
        parts["code"] = code
    if image.side == "cost":  # otherwise a file cached as another side would not be checked as a cost map
        parts["side"] = "cost"
    key = sha256_of(json.dumps(parts, sort_keys=True))
    return ImagePlan(image, operations, folder / f"{key}.npy")


@functools.cache
def _find_version() -> str:
    try:
        return metadata.version("im2im_zoo")
    except metadata.PackageNotFoundError:
        return ""


class PipelineFitter:
    """Fitting of operations to images, only once if every statistic is of the dataset.

    Args:
        dataset: images for statistics of the dataset.
        reference_id: by which operations refer to the input.
        allow_code: whether `custom` operations may run.
        root: folder of their sources.
        block_bytes: about how much of an image is in memory at once; the file is the same for any size.
    """

    def __init__(
        self,
        dataset: Sequence[xr.DataArray],
        reference_id: str,
        allow_code: bool,
        root: Path | None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.block_bytes = block_bytes
        self._dataset = dataset
        self._reference_id = reference_id
        self._allow_code = allow_code
        self._root = root
        self._shared: Pipeline | None = None

    def __call__(self, plan: ImagePlan) -> Pipeline:
        """Fit the operations of a plan, with the statistics kept beside its file; measure and keep them if there are none."""
        if self._shared is not None:
            return self._shared
        measured = read_json_object(plan.file.with_suffix(".json"))
        before = len(measured)
        wants = [want for operation in plan.operations for want in requirements(operation)]
        reference = plan.image.source
        pipeline = fit(
            plan.operations,
            plan.image.array,
            references={} if reference is None else {self._reference_id: reference.array},
            dataset=self._dataset,
            allow_code=self._allow_code,
            root=self._root,
            block_bytes=self.block_bytes,
            measured=measured,
        )
        if len(measured) > before:
            write_statistics(plan.file, measured)
        if wants and all(want.of_dataset for want in wants):
            self._shared = pipeline
        return pipeline


def write_cache_file(plan: ImagePlan, fitter: PipelineFitter, *, durable: bool = True) -> None:
    """Preprocess one image in blocks into a file, which gets its name when it is complete.

    Args:
        plan: the image, its operations and its file.
        fitter: of the operations.
        durable: whether the file must survive a power cut.

    Raises:
        DataError: values that training cannot use, an operation that fails, or a full disk.
    """
    partial = plan.file.with_name(f"{plan.file.stem}.{uuid.uuid4().hex}.partial")
    handle = None
    try:
        pipeline = fitter(plan)
        # Locked, to distinguish it from a partial file of a killed process.
        handle = create_locked_file(partial)
        _write_blocks(plan.image, pipeline, partial, fitter.block_bytes)
        if sys.platform == "win32":  # an open file cannot be renamed
            os.close(handle)
            handle = None
        if durable:
            sync(partial)
        move_into_place(partial, plan.file)
    except ProcessingError as error:
        raise DataError(f"{_describe_source(plan)}: {error}") from error
    except OSError as error:
        raise DataError(_explain_not_written(plan.file.parent, error)) from error
    finally:
        if handle is not None:
            os.close(handle)
        partial.unlink(missing_ok=True)


def _explain_not_written(folder: Path, error: OSError) -> str:
    if error.errno in FULL:
        return (
            f"data.cache: no space is left in {folder}; free some, or give another folder (for a temporary one, set TMPDIR); finished "
            "images are kept"
        )
    return f"data.cache: {folder} cannot be written to ({error.strerror}); give another folder"


def open_lazily(plan: ImagePlan, fitter: PipelineFitter) -> LazyPreprocessedImage:
    """Return an image whose regions are preprocessed when they are read.

    Raises:
        DataError: an operation that needs the whole image, or fails.
    """
    try:
        pipeline = fitter(plan)
    except ProcessingError as error:
        raise DataError(f"{_describe_source(plan)}: {error}") from error
    if not pipeline.is_pointwise:
        raise DataError(
            f"data.cache: none: an operation of {plan.image.side}.preprocessing needs whole images and cannot be applied to regions "
            "when they are read; use a cache (temporary, kept, or a folder)"
        )
    return LazyPreprocessedImage(plan.image.array, pipeline, plan.image.side)


def _describe_source(plan: ImagePlan) -> str:
    return f"{plan.image.side}.preprocessing of {plan.image.array.attrs.get('source')}"


def _write_blocks(whole_image: SourceImage, pipeline: Pipeline, file: Path, block_bytes: int) -> None:
    image, side = whole_image.array, whole_image.side
    axes = [str(axis) for axis in image.dims]
    whole = {axis: image.sizes[axis] for axis in pipeline.whole_axes if axis in axes}
    written: RegionFile | None = None
    for start, block in walk(image, block_bytes=block_bytes, grain=whole):
        made = pipeline(block)
        values = convert_to_float32(made.transpose(*axes).to_numpy(), str(image.attrs.get("source")), side)
        if written is None:
            # Only an operation on all channels at once can change their number.
            sizes = dict(image.sizes) | ({"channel": made.sizes["channel"]} if "channel" in whole else {})
            shape = tuple(sizes[axis] for axis in axes)
            offset = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape).offset
            written = RegionFile(file, offset, shape, np.dtype(np.float32))
        place = tuple(slice(start[a], start[a] + n) for a, n in zip(axes, values.shape, strict=True))
        written.write(place, values)
    if written is not None:
        written.close()


def write_statistics(file: Path, measured: Mapping[str, Any]) -> None:
    """Write the statistics of an image atomically; on a full disk, or if they are not finite, they are measured again next time."""
    with suppress(OSError, ValueError):
        write_text(file.with_suffix(".json"), json.dumps(measured, allow_nan=False))
