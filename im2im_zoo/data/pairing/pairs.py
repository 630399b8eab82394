"""Pairs of image files for training and validation: their hash, the check that none is on both sides, and time points."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.pairing.files import format_file_list, hash_content
from im2im_zoo.images import Place, open_image
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Data

PARTS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of an input image, its target and its cost map; the same file if they are channels of it.

    Attributes:
        name: of the pair.
        input: first file of the input.
        target: with `pairing: self` the input.
        cost: if there are cost maps.
        truth: with `pairing: self`, the image that results are evaluated against, where it is known.
        time: the time point, where each one of the files is an image.
        more: further files of the input, whose channels follow those of `input`.
    """

    name: str
    input: Place
    target: Place
    cost: Place | None = None
    truth: Place | None = None
    time: int | None = None
    more: tuple[Place, ...] = ()

    @property
    def inputs(self) -> tuple[Place, ...]:
        """All files of the input."""
        return (self.input, *self.more)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of training and validation, sorted by name.

    In unpaired training no pair trains, but `inputs` and `targets` of any numbers, each sorted by name.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    inputs: tuple[Path, ...] = ()
    targets: tuple[Path, ...] = ()


def hash_pairs(pairs: Pairs, content: Callable[[Place], str] = hash_content) -> str:
    """Hash the names and contents of all images and the split (SHA-256).

    The hash does not depend on the folders of the files, nor on the images that results are evaluated against. Each file
    is read once.

    Args:
        pairs: all of them.
        content: function that hashes a file's content; see `content_hashes.remember_hashes`.
    """
    known: dict[Place, str] = {}
    lines = []
    for part, group in zip(PARTS, (pairs.train, pairs.validation), strict=True):
        for pair in group:
            files = [path for path in (*pair.inputs, pair.target, pair.cost) if path is not None]
            for path in set(files) - known.keys():
                known[path] = content(path)
            lines.append("|".join([part, pair.name, *(known[path] for path in files)]))
    for side, paths in (("input", pairs.inputs), ("target", pairs.targets)):
        lines += [f"train {side}|{stem_of(path)}|{content(path)}" for path in paths]
    return sha256_of("\n".join(lines))


def refuse_overlap(pairs: Pairs) -> None:
    """Refuse images that both train and validate, under one path or as copies of the same name."""
    lone = [[(stem_of(path), path) for path in side] for side in (pairs.inputs, pairs.targets)]
    shared = _find_overlap(
        [*lone[0], *((pair.name, path) for pair in pairs.train for path in pair.inputs)],
        [(pair.name, path) for pair in pairs.validation for path in pair.inputs],
    )
    # Only the inputs of training pairs are compared: targets of empty images can be equal.
    shared += _find_overlap(lone[1], [(pair.name, pair.target) for pair in pairs.validation])
    if shared:
        raise DataError(
            "images are in both training and validation, so the validation would be too good; "
            f"remove them from one:\n{format_file_list(shared)}"
        )


def _find_overlap(train: Sequence[tuple[str, Place]], validation: Sequence[tuple[str, Place]]) -> list[Place]:
    places = {resolve_place(path) for _, path in train}
    named = {(name, path.name): path for name, path in train}
    return [
        path
        for name, path in validation
        if resolve_place(path) in places or _same_content(path, named.get((name, path.name)))
    ]


def resolve_place(path: Place) -> Place:
    """Return the absolute path of a file, without links; an address as it is."""
    return path.resolve() if isinstance(path, Path) else path


def _same_content(path: Place, other: Place | None) -> bool:
    if not isinstance(path, Path) or not isinstance(other, Path):
        return False
    if path.is_dir() or other.is_dir() or path.stat().st_size != other.stat().st_size:
        return False
    return hash_content(path) == hash_content(other)


def split_time_points(pairs: Iterable[Pair], data: Data) -> tuple[Pair, ...]:
    """Split each pair into its time points if `data.time_points` is set: `a_t0003` is one of `a`.

    Raises:
        DataError: a movie whose target has another number of time points.
        ImageError, AxesError: a file that cannot be opened.
    """
    return tuple(
        part for pair in pairs for part in (_split_pair(pair, data) if data.time_points else (pair,))
    )


def _split_pair(pair: Pair, data: Data) -> Iterator[Pair]:
    count = open_image(pair.input, axes=data.input_axes).sizes.get("time")
    others = dict.fromkeys(pair.more, data.input_axes) | {pair.target: data.target_axes}
    others |= {} if pair.cost is None else {pair.cost: data.cost_axes}
    for path, axes in others.items():
        length = count if path == pair.input else open_image(path, axes=axes).sizes.get("time")
        if length is not None and length != count:
            raise DataError(
                f"data.time_points: {pair.input} has {count or 1} time points and {path} has {length}; give both the same number, or "
                "one a file without a time axis, which is used for all of them"
            )
    if count is None:
        yield pair
    for time in range(count or 0):
        yield replace(pair, name=f"{pair.name}_t{time:04}", time=time)
