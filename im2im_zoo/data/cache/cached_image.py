"""One image preprocessed into one file of the cache, under a name that says what its values depend on. Knows no pairs."""

import json
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import FULL, DataError, ProcessingError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.cache.cache_folder import locked_file
from im2im_zoo.data.cache.statistics import read_statistics, write_statistics
from im2im_zoo.data.cache.stored import RawImage
from im2im_zoo.data.cache.values import checked_float32
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
class Image:
    """A raw image, lazy; `identity` is another one after any change of its file."""

    identity: str
    array: xr.DataArray
    side: Side
    partner: "Image | None" = None
    """The input that belongs to a target or a cost map, if one does."""

    @property
    def source(self) -> "Image | None":
        """The input whose statistics an operation may refer to."""
        return self if self.side == "input" else self.partner


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one image is to become."""

    image: Image
    operations: Sequence[Operation]
    file: Path


def plan_file(
    image: Image, training: Sequence[Image], recipe: Recipe, folder: Path, root: Path | None = None
) -> Plan:
    """What an image is to become, and the file for it, which is the same for the same values.

    Args:
        image: to be preprocessed.
        training: all images of its side that train, of which statistics of the dataset are taken.
        recipe: its `input` and `target` say how; a cost map is used as it is.
        folder: of the cache.
        root: folder of the sources of `custom` operations that are not ours.

    Raises:
        DataError: an operation refers to the input that belongs to the image, and there is none; or the file of a custom
            one is not there.
    """
    operations: Sequence[Operation] = (
        () if image.side == "cost" else getattr(recipe, image.side).preprocessing
    )
    wants = [want for operation in operations for want in requirements(operation)]
    by_source = any(want.reference for want in wants)
    if by_source and image.source is None:
        raise DataError(
            f"{image.side}.preprocessing refers to the input that belongs to an image, but with data.pairing: unpaired "
            "there is none; take the statistics of the image itself"
        )
    parts = {
        "format": _FORMAT,
        "version": _version(),
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
    if image.side == "cost":  # else a file that was cached as another side would go unchecked
        parts["side"] = "cost"
    key = sha256_of(json.dumps(parts, sort_keys=True))
    return Plan(image, operations, folder / f"{key}.npy")


def _version() -> str:
    try:
        return metadata.version("im2im_zoo")
    except metadata.PackageNotFoundError:
        return ""


class Fitter:
    """Fits operations to images; once for all if every statistic is of the dataset.

    Args:
        dataset: the images that statistics of the dataset are taken of.
        reference_id: of the input, which statistics of another tensor are taken of.
        allow_code, root: of `custom` operations, as in `fit`.
        block_bytes: about how much of an image is in memory at once; what is written is the same for any size.
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

    def __call__(self, plan: Plan) -> Pipeline:
        """The operations of a plan, with the statistics that are kept, or taken and kept, beside its file."""
        if self._shared is not None:
            return self._shared
        measured = read_statistics(plan.file)
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


def write(plan: Plan, fitter: Fitter) -> None:
    """Preprocess one image in blocks, into a file that takes its name at the end."""
    partial = plan.file.with_name(f"{plan.file.stem}.{uuid.uuid4().hex}.partial")
    handle = None
    try:
        pipeline = fitter(plan)
        # Locked, so that it can be told from what a killed process has left.
        handle = locked_file(partial)
        _write_blocks(plan.image, pipeline, partial, fitter.block_bytes)
        if sys.platform == "win32":  # an open file cannot be renamed
            os.close(handle)
            handle = None
        partial.replace(plan.file)
    except ProcessingError as error:
        raise DataError(f"{_where(plan)}: {error}") from error
    except OSError as error:
        raise DataError(_not_written(plan.file.parent, error)) from error
    finally:
        if handle is not None:
            os.close(handle)
        partial.unlink(missing_ok=True)


def _not_written(folder: Path, error: OSError) -> str:
    if error.errno in FULL:
        return (
            f"data.cache: no space is left in {folder}; free some, or give another folder (for a temporary one, set TMPDIR); what was "
            "done is kept"
        )
    return f"data.cache: {folder} cannot be written to ({error.strerror}); give another folder"


def raw_image(plan: Plan, fitter: Fitter) -> RawImage:
    """The image to be read in regions, each preprocessed as it is read.

    Raises:
        DataError: an operation that needs the whole image, or cannot be done.
    """
    try:
        pipeline = fitter(plan)
    except ProcessingError as error:
        raise DataError(f"{_where(plan)}: {error}") from error
    if not pipeline.is_pointwise:
        raise DataError(
            f"data.cache: none: an operation of {plan.image.side}.preprocessing needs whole images, and cannot be done to parts as "
            "they are read; use a cache (temporary, kept, or a folder)"
        )
    return RawImage(plan.image.array, pipeline, plan.image.side)


def _where(plan: Plan) -> str:
    return f"{plan.image.side}.preprocessing of {plan.image.array.attrs.get('source')}"


def _write_blocks(whole_image: Image, pipeline: Pipeline, file: Path, block_bytes: int) -> None:
    image, side = whole_image.array, whole_image.side
    axes = [str(axis) for axis in image.dims]
    whole = {axis: image.sizes[axis] for axis in pipeline.whole_axes if axis in axes}
    written: RegionFile | None = None
    for start, block in walk(image, block_bytes=block_bytes, grain=whole):
        made = pipeline(block)
        values = checked_float32(made.transpose(*axes).to_numpy(), str(image.attrs.get("source")), side)
        if written is None:
            # Only an operation that sees all channels at once can change their number.
            sizes = dict(image.sizes) | ({"channel": made.sizes["channel"]} if "channel" in whole else {})
            shape = tuple(sizes[axis] for axis in axes)
            offset = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape).offset
            written = RegionFile(file, offset, shape, np.dtype(np.float32))
        place = tuple(slice(start[a], start[a] + n) for a, n in zip(axes, values.shape, strict=True))
        written.write(place, values)
    if written is not None:
        written.close()
        with file.open("r+b") as made_file:
            os.fsync(made_file.fileno())
