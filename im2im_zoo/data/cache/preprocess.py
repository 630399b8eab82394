"""All images of a recipe preprocessed: once into `.npy` files, some at a time, or as they are read. Draws no patches.

Statistics are the image's (or the training set's), so they are taken here, before any patch is cut.
"""

import functools
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.cache.cached_image import BLOCK_BYTES, Fitter, Image, Plan, plan_file, raw_image, write
from im2im_zoo.data.cache.stored import Stored
from im2im_zoo.data.pairing.files import identify
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.pairs import Pair, Pairs
from im2im_zoo.data.pairing.samples import Sample, check_samples, open_sample, open_side
from im2im_zoo.images import Place
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the pairs (and images without partners) done, how many there are in all, and the last one's name."""

_Entry = tuple[str, Mapping[Side, Image]]
"""A name, and the images of it: those of a pair, or one alone."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed pair; the target is the input where that is learnt from."""

    name: str
    input: Stored
    target: Stored
    shape: tuple[int, ...]
    """Voxels along the space axes, the same for all."""
    cost: Stored | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A preprocessed image without a partner, and its space axes' voxels."""

    image: Stored
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """The preprocessed pairs and images, in the order of `Pairs`."""

    train: tuple[Prepared, ...]
    validation: tuple[Prepared, ...]
    inputs: tuple[PreparedImage, ...] = ()
    targets: tuple[PreparedImage, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What all images are to become. Entries are numbered: pairs that train, pairs that validate, inputs, targets.

    Attributes:
        prepared: the pairs and images; their files may not be there yet.
        files: of each entry.
        names: of each entry.
    """

    prepared: PreparedPairs
    files: tuple[frozenset[Path], ...]
    names: tuple[str, ...]
    _plans: tuple[Mapping[Side, Plan], ...]
    _fitters: Mapping[Side, Fitter]

    def write(self, entries: Iterable[int], progress: Progress | None = None) -> None:
        """Make the files of some entries, except those that are there; others may make them at the same time.

        Raises:
            DataError: values that are not finite, no space.
            ImageError: a file that cannot be read.
        """
        chosen = list(entries)
        missing = [plan for n in chosen for plan in self._plans[n].values() if not plan.file.is_file()]
        if missing:
            _check_space(missing)
        for done, number in enumerate(chosen, 1):
            for plan in self._plans[number].values():
                if not plan.file.is_file():
                    write(plan, self._fitters[plan.image.side])
            if progress is not None:
                progress(done, len(chosen), self.names[number])

    def size_of(self, entries: Iterable[int]) -> int:
        """Bytes that the files of some entries take together, if no operation changes the number of channels."""
        files = {plan.file: plan.image.array.size * 4 for n in entries for plan in self._plans[n].values()}
        return sum(files.values())

    def raw(self, pairs: Pairs, recipe: Recipe, progress: Progress | None = None) -> PreparedPairs:
        """All images, to be preprocessed as they are read: only their statistics are taken now.

        Raises:
            DataError: an operation that needs whole images.
        """
        made = []
        for number, plans in enumerate(self._plans, 1):
            made.append({side: raw_image(plan, self._fitters[side]) for side, plan in plans.items()})
            if progress is not None:
                progress(number, len(self._plans), self.names[number - 1])
        return _prepared(self.names, made, self._plans, pairs, recipe)


def plan_all(
    pairs: Pairs,
    recipe: Recipe,
    folder: Path,
    *,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Preparation:
    """Open and check all images; write nothing.

    A file's name is a hash of everything that its values depend on, and a file appears under its name only
    when it is complete, so several processes and several recipes can share a folder.

    Args:
        pairs: what to preprocess. Statistics of the dataset are those of all training images.
        recipe: its `input` and `target` say how.
        folder: where to; made if needed.
        allow_code: `custom` among them allows the Python of `custom` operations.
        root: folder of the sources of `custom` operations.
        block_bytes: about how much of an image is in memory at once; what is written is the same for any size.

    Raises:
        DataError: images that do not fit together or to the recipe; a folder that cannot be made.
        ImageError: a file that cannot be read.
    """
    entries = _open(pairs, recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"data.cache: {folder} cannot be made ({error.strerror}); give another folder, or set XDG_CACHE_HOME for that of the user"
        ) from error
    training = _training(entries, pairs)
    plans = tuple(
        {side: plan_file(image, training[side], recipe, folder, root) for side, image in images.items()}
        for _, images in entries
    )
    fitters = {
        side: Fitter(
            [image.array for image in images], recipe.input.id, "custom" in allow_code, root, block_bytes
        )
        for side, images in training.items()
    }
    names = tuple(name for name, _ in entries)
    files = [{side: plan.file for side, plan in entry.items()} for entry in plans]
    prepared = _prepared(names, files, plans, pairs, recipe)
    return Preparation(prepared, tuple(frozenset(f.values()) for f in files), names, plans, fitters)


def preprocess(
    pairs: Pairs,
    recipe: Recipe,
    folder: Path,
    *,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    progress: Progress | None = None,
) -> PreparedPairs:
    """Preprocess all images into a folder, except those that it holds already; see `plan_all`.

    Raises:
        DataError, ImageError: as `plan_all`, and `Preparation.write`.
    """
    preparation = plan_all(pairs, recipe, folder, allow_code=allow_code, root=root)
    preparation.write(range(len(preparation.names)), progress)
    return preparation.prepared


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
    pair: Pair, arrays: Mapping[Side, xr.DataArray], identity: Callable[[Place], str]
) -> dict[Side, Image]:
    def known(path: Place) -> str:
        return identity(path) if pair.time is None else f"{identity(path)}, time {pair.time}"

    source = Image(" + ".join(map(known, pair.inputs)), arrays["input"], "input")
    return {
        side: source if side == "input" else Image(known(getattr(pair, side)), array, side, source)
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
    names: Sequence[str],
    stored: Sequence[Mapping[Side, Stored]],
    plans: Sequence[Mapping[Side, Plan]],
    pairs: Pairs,
    recipe: Recipe,
) -> PreparedPairs:
    def shape(plan: Plan) -> tuple[int, ...]:
        return tuple(plan.image.array.sizes[axis] for axis in recipe.space)

    count = len(pairs.train) + len(pairs.validation)
    made = [
        Prepared(
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


def _check_space(plans: Sequence[Plan]) -> None:
    folder = plans[0].file.parent
    needed = sum(plan.image.array.size * 4 for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the preprocessed images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some, give another folder as the cache (data.cache; for a temporary one, set TMPDIR), keep fewer images there at a "
            "time (data.loaded), or read the images themselves (data.cache: none)"
        )
