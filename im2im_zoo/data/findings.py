"""What is wrong, or may be, with the images of a set: each kind of finding has a code, and says what to do. Reads nothing."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from im2im_zoo.data.matching import Side
from im2im_zoo.data.splitting import likely_group
from im2im_zoo.data.voxels import Voxels
from im2im_zoo.images import pixel_size_um
from im2im_zoo.recipe import Recipe

Severity = Literal["error", "warning"]
Part = Literal["train", "validation"]

# Largest values of cameras of 8, 10, 12, 14 and 16 bits.
_FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_SATURATED = 0.01
# Relative difference of pixel sizes from which objects look larger or smaller than in the other images.
_PIXEL_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (an error: training fails, or its figures mean nothing) or that may be (a warning).

    Attributes:
        code: of the kind of finding, e.g. `leakage`.
        message: what it is and what to do about it.
        files: the images, each in a few words; all of them.
        names: the pairs that they belong to.
    """

    code: str
    severity: Severity
    message: str
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """An image of the set that could be opened, and its voxels if they were looked at."""

    name: str
    part: Part
    side: Side
    image: xr.DataArray
    voxels: Voxels | None = None

    @property
    def source(self) -> str:
        """Its file."""
        return str(self.image.attrs.get("source"))


def findings_of(looks: Sequence[Look], recipe: Recipe) -> list[Finding]:
    """All that can be told of a set from its images, errors first."""
    rules: tuple[Callable[[Sequence[Look], Recipe], Iterator[Finding]], ...] = (
        _copies,
        _related,
        _not_finite,
        _empty_targets,
        _labels,
        _constant,
        _saturated,
        _pixel_sizes,
        _types,
    )
    found = [finding for rule in rules for finding in rule(looks, recipe)]
    return sorted(found, key=lambda finding: finding.severity)


def _of(code: str, severity: Severity, message: str, looks: Iterable[tuple[Look, str]]) -> Iterator[Finding]:
    """A finding if there are images that it is of, each with a remark."""
    listed = list(looks)
    if listed:
        files = tuple(f"{look.source}: {remark}" if remark else look.source for look, remark in listed)
        yield Finding(code, severity, message, files, tuple(dict.fromkeys(look.name for look, _ in listed)))


def _measured(looks: Sequence[Look], *sides: Side) -> Iterator[tuple[Look, Voxels]]:
    return ((look, look.voxels) for look in looks if look.voxels is not None and look.side in sides)


def _copies(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Inputs of the same voxels, on both sides of the split or on one."""
    same: dict[str, list[Look]] = defaultdict(list)
    targets = {look.name: voxels.fingerprint for look, voxels in _measured(looks, "target")}
    for look, voxels in _measured(looks, "input"):
        if not voxels.is_constant:  # of which another finding tells
            same[voxels.fingerprint].append(look)
    groups = [group for group in same.values() if len(group) > 1]
    across = [group for group in groups if len({look.part for look in group}) > 1]
    within = [group for group in groups if len({look.part for look in group}) == 1]
    yield from _of(
        "leakage",
        "error",
        "the same image trains and validates, so that the validation says nothing; remove one of each",
        ((look, f"{look.part}, as {group[0].source}") for group in across for look in group[1:]),
    )
    yield from _of(
        "duplicate",
        "warning",
        "the same image is there more than once, and counts as often; keep one of each",
        ((look, f"as {group[0].source}") for group in within for look in group[1:]),
    )
    yield from _of(
        "contradiction",
        "warning",
        "the same image has different targets; keep the one that is right, if they are not meant to differ",
        (
            (look, f"another target than {group[0].source}")
            for group in groups
            for look in group[1:]
            if targets.get(look.name) != targets.get(group[0].name)
        ),
    )


def _related(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Names that look like planes, time points or fields of one thing, on both sides of the split."""
    if recipe.data.group is not None:  # the split heeds it
        return
    parts: dict[str, dict[Part, Look]] = defaultdict(dict)
    for look in looks:
        group = likely_group(look.name) if look.side == "input" else None
        if group is not None:
            parts[group].setdefault(look.part, look)
    yield from _of(
        "related-images",
        "warning",
        "planes, time points or fields of the same thing seem to train and to validate, so that validation looks better than "
        "new images will; keep them together: data.group (a regular expression of the part of the name that they share), or "
        "folders train/ and val/ and data.split: folders",
        (
            (found["validation"], f"like {found['train'].name}, which trains")
            for found in parts.values()
            if len(found) == 2
        ),
    )


def _not_finite(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    yield from _of(
        "not-finite",
        "error",
        "voxels are NaN or infinite; replace them in the file, for instance by 0",
        (
            (look, f"{voxels.not_finite} of {voxels.count} voxels")
            for look, voxels in _measured(looks, "input", "target", "cost")
            if voxels.not_finite
        ),
    )


def _empty_targets(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    if recipe.output.task == "regression":
        return
    targets = list(_measured(looks, "target"))
    empty = [look for look, voxels in targets if voxels.is_constant]
    for part in ("train", "validation"):
        of_part = [look for look, _ in targets if look.part == part]
        if of_part and all(look in empty for look in of_part):
            yield from _of(
                "empty-target",
                "error",
                f"no target of the {part} images has anything in it; check that these are the masks",
                ((look, "") for look in of_part),
            )
            empty = [look for look in empty if look.part != part]
    yield from _of(
        "empty-target",
        "warning",
        "targets have one value everywhere; keep them if these images hold nothing, else correct or remove them",
        ((look, "") for look in empty),
    )


def _labels(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    if recipe.output.task != "instance":
        return
    targets = list(_measured(looks, "target"))
    yield from _of(
        "labels",
        "error",
        "targets of an instance task are labels, but these have values that are no whole numbers from 0; give label images",
        ((look, "") for look, v in targets if not v.whole_numbers or v.lowest < 0),
    )
    yield from _of(
        "one-label",
        "warning",
        "targets have one object at most, as masks have, though the task is instance; number the objects (connected components), "
        "if there are several in an image",
        ((look, f"0 and {v.highest:g}") for look, v in targets if v.is_binary and v.lowest == 0),
    )


def _constant(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from _of(
        "constant-image",
        "warning",
        "images have one value everywhere; remove them, or export them anew",
        ((look, f"{v.lowest:g}") for look, v in _measured(looks, *sides) if v.is_constant),
    )


def _saturated(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from _of(
        "saturated-image",
        "warning",
        "images are cut off at the largest value that the camera or the file can hold, and have lost what is above it; leave "
        "them out, or acquire with less light",
        (
            (look, f"{100 * v.at_highest / v.count:.1f} % at {v.highest:g}")
            for look, v in _measured(looks, *sides)
            if v.highest in _FULL_SCALES
            and v.at_highest > _SATURATED * v.count
            and not v.is_binary
            and not v.is_constant
        ),
    )


def _pixel_sizes(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Inputs whose pixels are of other sizes than most, or of sizes that the files do not say."""
    inputs = [look for look in looks if look.side == "input"]
    sizes = [pixel_size_um(look.image) for look in inputs]
    for axis in recipe.space:
        known = sorted(size[axis] for size in sizes if size.get(axis))
        if not known:
            continue
        usual = known[len(known) // 2]
        yield from _of(
            "mixed-pixel-sizes",
            "warning",
            f"most images have pixels of {usual:g} µm along {axis}, and these have others, so that the same objects look larger "
            "or smaller; resample them, or correct the metadata",
            (
                (look, f"{size[axis]:g} µm")
                for look, size in zip(inputs, sizes, strict=True)
                if size.get(axis) and not np.isclose(size[axis], usual, rtol=_PIXEL_TOLERANCE, atol=0)
            ),
        )
        yield from _of(
            "unknown-pixel-size",
            "warning",
            f"most images say the size of their pixels along {axis}, and these do not; write it into the files",
            ((look, "") for look, size in zip(inputs, sizes, strict=True) if not size.get(axis)),
        )


def _types(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Inputs, or targets that are intensities, stored with other types than most."""
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    for side in sides:
        images = [look for look in looks if look.side == side]
        usual = _most_common(str(look.image.dtype) for look in images)
        yield from _of(
            "mixed-types",
            "warning",
            f"most {side} images are {usual}, and these are not, so that their values may mean something else; convert them alike, "
            f"or scale each in {side}.preprocessing",
            ((look, str(look.image.dtype)) for look in images if str(look.image.dtype) != usual),
        )


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    return max(sorted(counts), key=lambda value: counts[value], default="")
