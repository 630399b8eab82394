"""Preprocessing of all images of a recipe: once into `.npy` files, some at a time, or when they are read.

Statistics belong to the image (or the training set), so they are measured here, before any patch is cut.
"""

import functools
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.cache.cached_image import (
    BLOCK_BYTES,
    ImagePlan,
    PipelineFitter,
    SourceImage,
    open_lazily,
    plan_image,
    write_cache_file,
)
from im2im_zoo.data.cache.stored import StoredImage
from im2im_zoo.data.pairing.files import identify
from im2im_zoo.data.pairing.image_pair import ImagePair, check_image_pairs, open_image_pair, open_side_image
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.pairs import Pair, Pairs
from im2im_zoo.images import Place
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the number of pairs (and images without partners) done, the total, and the name of the last one."""

_Entry = tuple[str, Mapping[Side, SourceImage]]
"""A name and its images: those of a pair, or a single one."""


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """A preprocessed pair.

    Attributes:
        name: of the pair.
        input, target, cost: the images; with `pairing: self` the target is the input.
        shape: voxels along the space axes, the same for all images.
    """

    name: str
    input: StoredImage
    target: StoredImage
    shape: tuple[int, ...]
    cost: StoredImage | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A preprocessed image without a partner, and its voxels along the space axes."""

    image: StoredImage
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """All preprocessed pairs and images, in the order of `Pairs`."""

    train: tuple[PreparedPair, ...]
    validation: tuple[PreparedPair, ...]
    inputs: tuple[PreparedImage, ...] = ()
    targets: tuple[PreparedImage, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PreprocessingPlan:
    """Plan for the preprocessing of all images. Entries are numbered: training pairs, validation pairs, inputs, targets.

    Attributes:
        prepared: the pairs and images; their files may not exist yet.
        files: of each entry.
        names: of each entry.
    """

    prepared: PreparedPairs
    files: tuple[frozenset[Path], ...]
    names: tuple[str, ...]
    _plans: tuple[Mapping[Side, ImagePlan], ...]
    _fitters: Mapping[Side, PipelineFitter]
    _durable: bool

    def write(self, entries: Iterable[int], progress: Progress | None = None) -> None:
        """Write the missing files of some entries; other processes may do so at the same time.

        Args:
            entries: their numbers.
            progress: called after each entry.

        Raises:
            DataError: values that are not finite, or no space.
            ImageError: a file that cannot be read.
        """
        chosen = list(entries)
        missing = [plan for n in chosen for plan in self._plans[n].values() if not plan.file.is_file()]
        if missing:
            _check_space(missing)
        for done, number in enumerate(chosen, 1):
            for plan in self._plans[number].values():
                if not plan.file.is_file():
                    write_cache_file(plan, self._fitters[plan.image.side], durable=self._durable)
            if progress is not None:
                progress(done, len(chosen), self.names[number])

    def size_of(self, entries: Iterable[int]) -> int:
        """Return the bytes of the files of some entries together, if no operation changes the number of channels."""
        files = {plan.file: plan.image.array.size * 4 for n in entries for plan in self._plans[n].values()}
        return sum(files.values())

    def open_lazily(self, pairs: Pairs, recipe: Recipe, progress: Progress | None = None) -> PreparedPairs:
        """Return all images, to be preprocessed when they are read; only their statistics are measured now.

        Raises:
            DataError: an operation that needs whole images.
        """
        made = []
        for number, plans in enumerate(self._plans, 1):
            made.append({side: open_lazily(plan, self._fitters[side]) for side, plan in plans.items()})
            if progress is not None:
                progress(number, len(self._plans), self.names[number - 1])
        return _make_prepared(self.names, made, self._plans, pairs, recipe)


def plan_preprocessing(
    pairs: Pairs,
    recipe: Recipe,
    folder: Path,
    *,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    block_bytes: int = BLOCK_BYTES,
    durable: bool = True,
) -> PreprocessingPlan:
    """Open and check all images and plan their preprocessing; no image is written.

    A file's name is a hash of everything that its values depend on, and a file appears under its name only
    when it is complete, so several processes and several recipes can share a folder.

    Args:
        pairs: to preprocess. Statistics of the dataset are those of all training images.
        recipe: has the operations in `input` and `target`.
        folder: for the files; created if needed.
        allow_code: `custom` among them allows the Python of `custom` operations.
        root: folder of the sources of `custom` operations.
        block_bytes: about how much of an image is in memory at once; what is written is the same for any size.
        durable: whether the files must survive a power cut, as in a folder that is kept; this takes longer.

    Raises:
        DataError: images that do not match each other or the recipe; a folder that cannot be created.
        ImageError: a file that cannot be read.
    """
    entries = _open(pairs, recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"data.cache: {folder} cannot be created ({error.strerror}); give another folder, or set XDG_CACHE_HOME to move the "
            "user's cache"
        ) from error
    training = _group_training(entries, pairs)
    plans = tuple(
        {side: plan_image(image, training[side], recipe, folder, root) for side, image in images.items()}
        for _, images in entries
    )
    fitters = {
        side: PipelineFitter(
            [image.array for image in images], recipe.input.id, "custom" in allow_code, root, block_bytes
        )
        for side, images in training.items()
    }
    names = tuple(name for name, _ in entries)
    files = [{side: plan.file for side, plan in entry.items()} for entry in plans]
    prepared = _make_prepared(names, files, plans, pairs, recipe)
    return PreprocessingPlan(
        prepared, tuple(frozenset(f.values()) for f in files), names, plans, fitters, durable
    )


def _open(pairs: Pairs, recipe: Recipe) -> list[_Entry]:
    """Open and check all images: training pairs, validation pairs, inputs, targets."""
    everything = [*pairs.train, *pairs.validation]
    samples = [open_image_pair(pair, recipe) for pair in everything]
    known = functools.cache(identify)
    lone: dict[Side, tuple[Path, ...]] = {"input": pairs.inputs, "target": pairs.targets}
    opened = {side: [open_side_image(path, recipe, side) for path in paths] for side, paths in lone.items()}
    check_image_pairs(samples, recipe, opened["input"], opened["target"])
    entries: list[_Entry] = [
        (pair.name, _make_images(pair, _select_images(sample, recipe), known))
        for pair, sample in zip(everything, samples, strict=True)
    ]
    for side, paths in lone.items():
        for path, array in zip(paths, opened[side], strict=True):
            entries.append((stem_of(path), {side: SourceImage(known(path), array, side)}))
    return entries


def _select_images(sample: ImagePair, recipe: Recipe) -> dict[Side, xr.DataArray]:
    """Return the images of a pair to preprocess, without the target where it is the input."""
    own = recipe.data.pairing == "self"
    return {side: image for side, image in sample.images.items() if not (own and side == "target")}


def _make_images(
    pair: Pair, arrays: Mapping[Side, xr.DataArray], identity: Callable[[Place], str]
) -> dict[Side, SourceImage]:
    def known(path: Place) -> str:
        return identity(path) if pair.time is None else f"{identity(path)}, time {pair.time}"

    source = SourceImage(" + ".join(map(known, pair.inputs)), arrays["input"], "input")
    return {
        side: source if side == "input" else SourceImage(known(getattr(pair, side)), array, side, source)
        for side, array in arrays.items()
    }


def _group_training(entries: Sequence[_Entry], pairs: Pairs) -> dict[Side, list[SourceImage]]:
    """Return the training images of each side, for statistics of the dataset."""
    held_out = range(len(pairs.train), len(pairs.train) + len(pairs.validation))
    found: dict[Side, list[SourceImage]] = {"input": [], "target": [], "cost": []}
    for number, (_, images) in enumerate(entries):
        for side, image in images.items():
            if number not in held_out:
                found[side].append(image)
    return found


def _make_prepared(
    names: Sequence[str],
    stored: Sequence[Mapping[Side, StoredImage]],
    plans: Sequence[Mapping[Side, ImagePlan]],
    pairs: Pairs,
    recipe: Recipe,
) -> PreparedPairs:
    def shape(plan: ImagePlan) -> tuple[int, ...]:
        return tuple(plan.image.array.sizes[axis] for axis in recipe.space)

    count = len(pairs.train) + len(pairs.validation)
    made = [
        PreparedPair(
            name,
            images["input"],
            images.get("target", images["input"]),
            shape(plan["input"]),
            images.get("cost"),
        )
        for name, images, plan in zip(names[:count], stored[:count], plans[:count], strict=True)
    ]
    lone: dict[Side, list[PreparedImage]] = {"input": [], "target": []}
    for images, plan in zip(stored[count:], plans[count:], strict=True):
        for side, image in images.items():
            lone[side].append(PreparedImage(image, shape(plan[side])))
    train, validation = made[: len(pairs.train)], made[len(pairs.train) :]
    return PreparedPairs(tuple(train), tuple(validation), tuple(lone["input"]), tuple(lone["target"]))


def _check_space(plans: Sequence[ImagePlan]) -> None:
    folder = plans[0].file.parent
    needed = sum(plan.image.array.size * 4 for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the preprocessed images need {needed / 1e9:.1f} GB in {folder}, but only {free / 1e9:.1f} GB are free; "
            "free some, give another folder (data.cache; for a temporary one, set TMPDIR), cache fewer images at a "
            "time (data.loaded), or use no cache (data.cache: none)"
        )
