"""Pairs of images, those that train and those that validate; what identifies them, and that none is on both sides. Finds none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.pairing.files import hash_content, list_files
from im2im_zoo.images import Place
from im2im_zoo.images.names import stem_of

PARTS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Pair:
    """An input image, its target and its cost map if it has one; the same file if they are channels of it.

    With `pairing: self` the target is the input, and `truth` what a result is measured against, where that is known.
    The channels of the files `more` follow those of `input`. `time` is the time point of the files that is meant, where each is an image of its own.
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
        """The files of the input."""
        return (self.input, *self.more)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that train and those that validate, each by name.

    Where training is unpaired, no pair trains: `inputs` and `targets` do, each by name, of any numbers.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    inputs: tuple[Path, ...] = ()
    targets: tuple[Path, ...] = ()


def hash_pairs(pairs: Pairs, content: Callable[[Place], str] = hash_content) -> str:
    """SHA-256 over the names and contents of all images and over which of them validate.

    It does not depend on where the files are, nor on what results are measured against. Each file is read once.

    Args:
        pairs: all of them.
        content: the hash of a file's content; see `content_hashes.remembered`.
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


def refuse_shared(pairs: Pairs) -> None:
    """Refuse images that both train and validate, under one path or as copies of the same name."""
    lone = [[(stem_of(path), path) for path in side] for side in (pairs.inputs, pairs.targets)]
    shared = _shared(
        [*lone[0], *((pair.name, path) for pair in pairs.train for path in pair.inputs)],
        [(pair.name, path) for pair in pairs.validation for path in pair.inputs],
    )
    # Of pairs that train only inputs are compared: targets of empty images may well be equal.
    shared += _shared(lone[1], [(pair.name, pair.target) for pair in pairs.validation])
    if shared:
        raise DataError(
            "images that are both in training and in validation, which would make the validation worthless; "
            f"remove them from one:\n{list_files(shared)}"
        )


def _shared(train: Sequence[tuple[str, Place]], validation: Sequence[tuple[str, Place]]) -> list[Place]:
    places = {resolved(path) for _, path in train}
    named = {(name, path.name): path for name, path in train}
    return [
        path
        for name, path in validation
        if resolved(path) in places or _same_content(path, named.get((name, path.name)))
    ]


def resolved(path: Place) -> Place:
    """The same for the same file, however its path is written."""
    return path.resolve() if isinstance(path, Path) else path


def _same_content(path: Place, other: Place | None) -> bool:
    if not isinstance(path, Path) or not isinstance(other, Path):
        return False
    if path.is_dir() or other.is_dir() or path.stat().st_size != other.stat().st_size:
        return False
    return hash_content(path) == hash_content(other)
