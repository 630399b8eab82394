"""Whole images preprocessed once into float32 `.npy` files, of which training maps patches. Draws no patches.

Statistics are the image's (or the training set's), so they are taken here, before any patch is cut.
"""

import functools
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from im2im_zoo.data.cached_image import Fitter, Image, Plan, plan_file, write
from im2im_zoo.data.files import identify, stem_of
from im2im_zoo.data.matching import Side
from im2im_zoo.data.pairs import Pair, Pairs
from im2im_zoo.data.samples import Sample, check_samples, open_sample, open_side
from im2im_zoo.errors import DataError
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the pairs (and images without partners) done, how many there are in all, and the last one's name."""

_Entry = tuple[str, Mapping[Side, Image]]
"""A name, and the images of it: those of a pair, or one alone."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed pair: `.npy` files of float32, axes channel, (z,) y, x, C order."""

    name: str
    input: Path
    target: Path
    shape: tuple[int, ...]
    """Voxels along the space axes, the same for all."""
    cost: Path | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A preprocessed image without a partner: its `.npy` file, as those of `Prepared`, and its space axes' voxels."""

    file: Path
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """The preprocessed pairs and images, in the order of `Pairs`."""

    train: tuple[Prepared, ...]
    validation: tuple[Prepared, ...]
    inputs: tuple[PreparedImage, ...] = ()
    targets: tuple[PreparedImage, ...] = ()


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
    entries = _open(pairs, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    training = _training(entries, pairs)
    plans = [
        {side: plan_file(image, training[side], recipe, folder, root) for side, image in images.items()}
        for _, images in entries
    ]
    _check_space(folder, [plan for entry in plans for plan in entry.values() if not plan.file.is_file()])
    fitters = {
        side: Fitter([image.array for image in images], recipe.input.id, "custom" in allow_code, root)
        for side, images in training.items()
    }
    for number, ((name, _), entry) in enumerate(zip(entries, plans, strict=True), 1):
        for plan in entry.values():
            if not plan.file.is_file():
                write(plan, fitters[plan.image.side])
        if progress is not None:
            progress(number, len(entries), name)
    return _prepared([name for name, _ in entries], plans, pairs, recipe)


def _open(pairs: Pairs, recipe: Recipe) -> list[_Entry]:
    """Open and check everything: the pairs that train, those that validate, the inputs, the targets."""
    everything = [*pairs.train, *pairs.validation]
    samples = [open_sample(pair, recipe) for pair in everything]
    known = functools.cache(identify)
    lone: dict[Side, tuple[Path, ...]] = {"input": pairs.inputs, "target": pairs.targets}
    opened = {side: [open_side(path, recipe, side) for path in paths] for side, paths in lone.items()}
    check_samples(samples, recipe, opened["input"], opened["target"])
    entries: list[_Entry] = [
        (pair.name, _images(pair, _to_prepare(sample, recipe), known))
        for pair, sample in zip(everything, samples, strict=True)
    ]
    for side, paths in lone.items():
        for path, array in zip(paths, opened[side], strict=True):
            entries.append((stem_of(path), {side: Image(known(path), array, side)}))
    return entries


def _to_prepare(sample: Sample, recipe: Recipe) -> dict[Side, xr.DataArray]:
    """The images of a pair; where the input is its own target, it is one of them."""
    own = recipe.data.pairing == "self"
    return {side: image for side, image in sample.images.items() if not (own and side == "target")}


def _images(
    pair: Pair, arrays: Mapping[Side, xr.DataArray], identity: Callable[[Path], str]
) -> dict[Side, Image]:
    source = Image(identity(pair.input), arrays["input"], "input")
    return {
        side: source if side == "input" else Image(identity(getattr(pair, side)), array, side, source)
        for side, array in arrays.items()
    }


def _training(entries: Sequence[_Entry], pairs: Pairs) -> dict[Side, list[Image]]:
    """The images of each side that train, of which statistics of the dataset are taken."""
    held_out = range(len(pairs.train), len(pairs.train) + len(pairs.validation))
    found: dict[Side, list[Image]] = {"input": [], "target": [], "cost": []}
    for number, (_, images) in enumerate(entries):
        for side, image in images.items():
            if number not in held_out:
                found[side].append(image)
    return found


def _prepared(
    names: Sequence[str], plans: Sequence[Mapping[Side, Plan]], pairs: Pairs, recipe: Recipe
) -> PreparedPairs:
    def shape(plan: Plan) -> tuple[int, ...]:
        return tuple(plan.image.array.sizes[axis] for axis in recipe.space)

    count = len(pairs.train) + len(pairs.validation)
    made = []
    for name, plan in zip(names[:count], plans[:count], strict=True):
        cost = plan["cost"].file if "cost" in plan else None
        target = plan.get("target", plan["input"]).file
        made.append(Prepared(name, plan["input"].file, target, shape(plan["input"]), cost))
    lone = [plan for entry in plans[count:] for plan in entry.values()]
    inputs, targets = (
        tuple(PreparedImage(plan.file, shape(plan)) for plan in lone if plan.image.side == side)
        for side in ("input", "target")
    )
    return PreparedPairs(tuple(made[: len(pairs.train)]), tuple(made[len(pairs.train) :]), inputs, targets)


def _check_space(folder: Path, plans: Sequence[Plan]) -> None:
    needed = sum(plan.image.array.size * 4 for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the preprocessed images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some, or give another folder as the cache (for a temporary one, set TMPDIR)"
        )
