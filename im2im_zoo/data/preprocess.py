"""Whole images preprocessed once into float32 `.npy` files, of which training maps patches. Draws no patches.

Statistics are the image's (or the training set's), so they are taken here, before any patch is cut.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.data.files import identify
from im2im_zoo.data.pairing import Pair, Pairs
from im2im_zoo.data.samples import Sample, Side, check_samples, open_sample
from im2im_zoo.errors import DataError, ProcessingError
from im2im_zoo.processing import Operation, Pipeline, fit
from im2im_zoo.processing.blocks import walk
from im2im_zoo.processing.requirements import requirements
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the pairs done, the pairs in all, and the name of the last one."""

# Bump when the same image, axes and operations give other values.
_FORMAT = 1
_BLOCK_BYTES = 64 * 2**20
# float32 counts exactly up to here; beyond it, labels would merge.
_LARGEST_LABEL = 2**24


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed pair: `.npy` files of float32, axes channel, (z,) y, x, C order."""

    name: str
    input: Path
    target: Path
    shape: tuple[int, ...]
    """Voxels along the space axes, the same for both."""


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """The preprocessed pairs, in the order of the pairs."""

    train: tuple[Prepared, ...]
    validation: tuple[Prepared, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What one image is to become."""

    image: xr.DataArray
    operations: Sequence[Operation]
    reference: xr.DataArray
    side: Side
    file: Path


def preprocess(
    pairs: Pairs,
    recipe: Recipe,
    folder: Path,
    *,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    progress: Progress | None = None,
) -> PreparedPairs:
    """Preprocess all images into a folder, except those that it holds already.

    A file's name is a hash of everything that its values depend on, and a file appears under its name only
    when it is complete, so several processes and several recipes can share a folder.

    Args:
        pairs: what to preprocess. Statistics of the dataset are those of all training images.
        recipe: its `input` and `target` say how.
        folder: where to; made if needed.
        allow_code: `custom` among them allows the Python of `custom` operations.
        root: folder of the sources of `custom` operations.
        progress: called after each pair.

    Raises:
        DataError: images that do not fit together or to the recipe, values that are not finite, no space.
        ImageError: a file that cannot be read.
    """
    everything = [*pairs.train, *pairs.validation]
    samples = [open_sample(pair, recipe) for pair in everything]
    check_samples(samples, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    identity = {path: identify(path) for pair in everything for path in (pair.input, pair.target)}
    plans = [
        _plans(pair, sample, pairs, recipe, folder, identity)
        for pair, sample in zip(everything, samples, strict=True)
    ]
    _check_space(folder, [plan for both in plans for plan in both if not plan.file.is_file()])
    fitters = {
        side: _Fitter(
            [getattr(s, side) for s in samples[: len(pairs.train)]],
            recipe.input.id,
            "custom" in allow_code,
            root,
        )
        for side in ("input", "target")
    }
    prepared = []
    for number, (sample, both) in enumerate(zip(samples, plans, strict=True), 1):
        for plan in both:
            if not plan.file.is_file():
                _write(plan, fitters[plan.side])
        shape = tuple(sample.input.sizes[axis] for axis in recipe.space)
        prepared.append(Prepared(sample.name, both[0].file, both[1].file, shape))
        if progress is not None:
            progress(number, len(everything), sample.name)
    return PreparedPairs(tuple(prepared[: len(pairs.train)]), tuple(prepared[len(pairs.train) :]))


def _plans(
    pair: Pair, sample: Sample, pairs: Pairs, recipe: Recipe, folder: Path, identity: dict[Path, str]
) -> tuple[_Plan, _Plan]:
    def plan(side: Side) -> _Plan:
        operations = getattr(recipe, side).preprocessing
        wants = [want for operation in operations for want in requirements(operation)]
        parts = {
            "format": _FORMAT,
            "version": _version(),
            "image": identity[getattr(pair, side)],
            "axes": recipe.input.axes,
            "file_axes": getattr(recipe.data, f"{side}_axes"),
            "channels": getattr(recipe.data, f"{side}_channels"),
            "operations": [operation.model_dump(mode="json") for operation in operations],
            "reference": identity[pair.input] if any(w.reference for w in wants) else None,
            "dataset": [identity[getattr(p, side)] for p in pairs.train]
            if any(w.of_dataset for w in wants)
            else None,
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return _Plan(getattr(sample, side), operations, sample.input, side, folder / f"{key}.npy")

    return plan("input"), plan("target")


def _version() -> str:
    try:
        return metadata.version("im2im_zoo")
    except metadata.PackageNotFoundError:
        return ""


class _Fitter:
    """Fits operations to images; once for all if every statistic is of the dataset."""

    def __init__(
        self, dataset: Sequence[xr.DataArray], reference_id: str, allow_code: bool, root: Path | None
    ) -> None:
        self._dataset = dataset
        self._reference_id = reference_id
        self._allow_code = allow_code
        self._root = root
        self._shared: Pipeline | None = None

    def __call__(self, plan: _Plan) -> Pipeline:
        if self._shared is not None:
            return self._shared
        wants = [want for operation in plan.operations for want in requirements(operation)]
        pipeline = fit(
            plan.operations,
            plan.image,
            references={self._reference_id: plan.reference},
            dataset=self._dataset,
            allow_code=self._allow_code,
            root=self._root,
            block_bytes=_BLOCK_BYTES,
        )
        if wants and all(want.of_dataset for want in wants):
            self._shared = pipeline
        return pipeline


def _check_space(folder: Path, plans: Sequence[_Plan]) -> None:
    needed = sum(plan.image.size * 4 for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the preprocessed images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some, or give another folder as the cache (for a temporary one, set TMPDIR)"
        )


def _write(plan: _Plan, fitter: _Fitter) -> None:
    """Preprocess one image in blocks, into a file that takes its name at the end."""
    partial = plan.file.with_name(f"{plan.file.stem}.{uuid.uuid4().hex}.partial")
    try:
        pipeline = fitter(plan)
        _write_blocks(plan.image, pipeline, partial, plan.side)
        partial.replace(plan.file)
    except ProcessingError as error:
        raise DataError(f"{plan.side}.preprocessing of {plan.image.attrs.get('source')}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_blocks(image: xr.DataArray, pipeline: Pipeline, file: Path, side: Side) -> None:
    axes = [str(axis) for axis in image.dims]
    whole = {axis: image.sizes[axis] for axis in pipeline.whole_axes if axis in axes}
    written: NDArray[np.float32] | None = None
    for start, block in walk(image, block_bytes=_BLOCK_BYTES, grain=whole):
        made = pipeline(block)
        values = _as_float32(made.transpose(*axes).to_numpy(), str(image.attrs.get("source")), side)
        if written is None:
            # Only an operation that sees all channels at once can change their number.
            sizes = dict(image.sizes) | ({"channel": made.sizes["channel"]} if "channel" in whole else {})
            shape = tuple(sizes[axis] for axis in axes)
            written = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        place = tuple(slice(start[a], start[a] + n) for a, n in zip(axes, values.shape, strict=True))
        written[place] = values
    if isinstance(written, np.memmap):
        written.flush()


def _as_float32(values: NDArray[np.generic], source: str, side: Side) -> NDArray[np.float32]:
    if values.dtype.kind in "iu" and max(int(values.max()), -int(values.min())) > _LARGEST_LABEL:
        raise DataError(
            f"{source}: values above {_LARGEST_LABEL} do not survive as float32, so labels would merge; "
            f"relabel the image from 1, or scale it in {side}.preprocessing"
        )
    result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise DataError(
            f"{source}: holds values that are not finite (NaN or infinite) after {side}.preprocessing; replace them "
            "in the file, for instance by 0"
        )
    return result
