"""Examination of all images of a recipe for problems; unlike training, it continues after each one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from im2im_zoo.core.errors import DataError, Im2ImError
from im2im_zoo.data.check.finding import DataFinding, ExaminedImage, Part
from im2im_zoo.data.check.image_rules import apply_rules
from im2im_zoo.data.check.voxels import measure_voxels
from im2im_zoo.data.pairing.image_pair import check_channels, check_image_pair, check_room, open_side_image
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.pairing import find_pairs, find_skipped
from im2im_zoo.data.pairing.pairs import Pair, Pairs
from im2im_zoo.data.statistics import list_far_numbers
from im2im_zoo.images import Place
from im2im_zoo.recipe import Recipe

Progress = Callable[[int, int, str], None]
"""Called with the number of images examined, the number of all images, and the name of the last one."""


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """All images that could be opened, and the findings, errors first."""

    examined: tuple[ExaminedImage, ...]
    findings: tuple[DataFinding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether there is no error among the findings."""
        return all(finding.severity != "error" for finding in self.findings)


def examine(recipe: Recipe, *, voxels: bool = True, progress: Progress | None = None) -> Examination:
    """Examine each image of a recipe once, in blocks of bounded memory.

    Args:
        recipe: its `data`, `input.axes` and `output.task` are used.
        voxels: whether to read the voxels; otherwise only the metadata are checked.
        progress: called after each image.
    """
    try:
        pairs = find_pairs(recipe.data, recipe.seed)
    except Im2ImError as error:  # also for a movie or a plate that cannot be opened
        return Examination((), (_finding_from_error("pairing", error),))
    examined: list[ExaminedImage] = []
    found: list[DataFinding] = [*_find_unpaired(recipe)]
    for name, part, sides, time in _list_entries(pairs):
        opened, wrong = _open(name, part, sides, time, recipe)
        examined += opened
        found += wrong
    found += _check_whole_set(examined, recipe)
    if voxels:
        examined = _measure_all(examined, progress)
        found += _find_far_numbers(recipe)
    found += apply_rules(examined, recipe)
    return Examination(tuple(examined), tuple(sorted(found, key=lambda finding: finding.severity)))


def _find_unpaired(recipe: Recipe) -> Iterator[DataFinding]:
    """Find images that are left out because they have no partner."""
    skipped = find_skipped(recipe.data)
    if skipped:
        message = "images without a partner are not used (data.skip_unpaired); add what is missing to train on them, too"
        yield DataFinding("unpaired", "warning", message, tuple(map(str, skipped)))


def _find_far_numbers(recipe: Recipe) -> Iterator[DataFinding]:
    """Find stated means and standard deviations that are far from the images'; images without any are reported elsewhere."""
    try:
        for message in list_far_numbers(recipe):
            yield DataFinding("far-numbers", "warning", message)
    except Im2ImError:
        return


def _list_entries(pairs: Pairs) -> Iterator[tuple[str, Part, dict[Side, tuple[Place, ...]], int | None]]:
    """Yield the name, the part, the files and the time point of each pair, and of each image without a partner."""
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
) -> tuple[list[ExaminedImage], list[DataFinding]]:
    """Open the images of a pair as far as possible, and check that they match."""
    opened: dict[Side, xr.DataArray] = {}
    found = []
    for side, paths in sides.items():
        if side == "target" and recipe.data.pairing == "self" and paths[0] == sides["input"][0]:
            continue
        try:
            opened[side] = open_side_image(paths[0], recipe, side, time, paths[1:])
        except Im2ImError as error:
            found.append(_finding_from_error("unreadable-image", error, tuple(map(str, paths)), (name,)))
    if len(opened) > 1 and not found:
        try:
            check_image_pair(name, opened, recipe)
        except DataError as error:
            files = tuple(str(path) for paths in sides.values() for path in paths)
            found.append(_finding_from_error("mismatch", error, files, (name,)))
    return [ExaminedImage(name, part, side, image) for side, image in opened.items()], found


def _check_whole_set(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Check all images together for problems that training would refuse."""
    sides: tuple[Side, ...] = ("input", "target")
    for side in sides:
        images = [entry.image for entry in examined if entry.side == side]
        try:
            if images:
                check_channels(images, side, recipe)
        except DataError as error:
            yield _finding_of_set("channels", error, examined)
    inputs = {entry.name for entry in examined if entry.side == "input"}
    try:
        check_room(
            [entry.image for entry in examined if entry.side == "input" or entry.name not in inputs], recipe
        )
    except DataError as error:
        yield _finding_of_set("small-image", error, examined)


def _finding_of_set(code: str, error: Im2ImError, examined: Sequence[ExaminedImage]) -> DataFinding:
    """Make a finding with the names of the images whose files it lists."""
    found = _finding_from_error(code, error)
    files = [line.rpartition(": ")[0] for line in found.files]
    return replace(
        found, names=tuple(dict.fromkeys(entry.name for entry in examined if entry.source in files))
    )


def _measure_all(examined: Sequence[ExaminedImage], progress: Progress | None) -> list[ExaminedImage]:
    measured = []
    for number, entry in enumerate(examined, 1):
        measured.append(replace(entry, voxels=measure_voxels(entry.image)))
        if progress is not None:
            progress(number, len(examined), entry.name)
    return measured


def _finding_from_error(
    code: str, error: Im2ImError, files: tuple[str, ...] = (), names: tuple[str, ...] = ()
) -> DataFinding:
    """Make a finding from the error that training would raise; the files listed in its message, one a line, become its files."""
    message, _, listed = str(error).partition("\n")
    lines = tuple(line.strip() for line in listed.splitlines())
    return DataFinding(code, "error", message.removesuffix(":"), lines or files, names)
