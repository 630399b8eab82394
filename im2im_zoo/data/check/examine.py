"""Look through all images of a recipe and tell what will go wrong. Unlike training, it goes on after what it finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from im2im_zoo.core.errors import DataError, Im2ImError
from im2im_zoo.data.check.finding import Finding, Look, Part
from im2im_zoo.data.check.findings import findings_of
from im2im_zoo.data.check.voxels import measure_voxels
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pair, Pairs
from im2im_zoo.data.pairing.samples import check_channels, check_room, check_sample, open_side
from im2im_zoo.images import Place
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the images looked at, how many there are, and the last one's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """All images that could be opened, and what was found, errors first."""

    looks: tuple[Look, ...]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether there is no error among the findings."""
        return all(finding.severity != "error" for finding in self.findings)


def examine(recipe: Recipe, *, voxels: bool = True, progress: Progress | None = None) -> Examination:
    """Look at each image of a recipe once, in blocks of bounded memory.

    Args:
        recipe: its `data`, `input.axes` and `output.task` say what is right.
        voxels: whether to read the voxels; without, only what the files say of themselves is known.
        progress: called after each image.
    """
    try:
        pairs = find_pairs(recipe.data, recipe.seed)
    except Im2ImError as error:  # also of a movie or a plate that cannot be opened
        return Examination((), (_of_error("pairing", error),))
    looks: list[Look] = []
    found: list[Finding] = []
    for name, part, sides, time in _entries(pairs):
        opened, wrong = _open(name, part, sides, time, recipe)
        looks += opened
        found += wrong
    found += _of_the_set(looks, recipe)
    if voxels:
        looks = _with_voxels(looks, progress)
    found += findings_of(looks, recipe)
    return Examination(tuple(looks), tuple(sorted(found, key=lambda finding: finding.severity)))


def _entries(pairs: Pairs) -> Iterator[tuple[str, Part, dict[Side, tuple[Place, ...]], int | None]]:
    """The name, the part, the files and the time point of each pair, and of each image without a partner."""
    groups: tuple[tuple[Part, Sequence[Pair]], ...] = (
        ("train", pairs.train),
        ("validation", pairs.validation),
    )
    for part, group in groups:
        for pair in group:
            files: dict[Side, tuple[Place, ...]] = {
                "input": pair.inputs,
                "target": (pair.truth or pair.target,),
            }
            yield pair.name, part, files | ({"cost": (pair.cost,)} if pair.cost else {}), pair.time
    lone: tuple[tuple[Side, Sequence[Path]], ...] = (("input", pairs.inputs), ("target", pairs.targets))
    for side, paths in lone:
        for path in paths:
            yield path.name, "train", {side: (path,)}, None


def _open(
    name: str, part: Part, sides: dict[Side, tuple[Place, ...]], time: int | None, recipe: Recipe
) -> tuple[list[Look], list[Finding]]:
    """What of a pair can be opened, and whether it fits together."""
    opened: dict[Side, xr.DataArray] = {}
    found = []
    for side, paths in sides.items():
        if side == "target" and recipe.data.pairing == "self" and paths[0] == sides["input"][0]:
            continue
        try:
            opened[side] = open_side(paths[0], recipe, side, time, paths[1:])
        except Im2ImError as error:
            found.append(_of_error("unreadable-image", error, tuple(map(str, paths)), (name,)))
    if len(opened) > 1 and not found:
        try:
            check_sample(name, opened, recipe)
        except DataError as error:
            files = tuple(str(path) for paths in sides.values() for path in paths)
            found.append(_of_error("mismatch", error, files, (name,)))
    return [Look(name, part, side, image) for side, image in opened.items()], found


def _of_the_set(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """What training would refuse of images that each are sound."""
    sides: tuple[Side, ...] = ("input", "target")
    for side in sides:
        images = [look.image for look in looks if look.side == side]
        try:
            if images:
                check_channels(images, side, recipe)
        except DataError as error:
            yield _of_set("channels", error, looks)
    inputs = {look.name for look in looks if look.side == "input"}
    try:
        check_room([look.image for look in looks if look.side == "input" or look.name not in inputs], recipe)
    except DataError as error:
        yield _of_set("small-image", error, looks)


def _of_set(code: str, error: Im2ImError, looks: Sequence[Look]) -> Finding:
    """The finding, with the names of the images whose files it lists."""
    found = _of_error(code, error)
    files = [line.rpartition(": ")[0] for line in found.files]
    return replace(found, names=tuple(dict.fromkeys(look.name for look in looks if look.source in files)))


def _with_voxels(looks: Sequence[Look], progress: Progress | None) -> list[Look]:
    measured = []
    for number, look in enumerate(looks, 1):
        measured.append(replace(look, voxels=measure_voxels(look.image)))
        if progress is not None:
            progress(number, len(looks), look.name)
    return measured


def _of_error(
    code: str, error: Im2ImError, files: tuple[str, ...] = (), names: tuple[str, ...] = ()
) -> Finding:
    """What training would say; the files that it lists, a line each, become those of the finding."""
    message, _, listed = str(error).partition("\n")
    lines = tuple(line.strip() for line in listed.splitlines())
    return Finding(code, "error", message.removesuffix(":"), lines or files, names)
