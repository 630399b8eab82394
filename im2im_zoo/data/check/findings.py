"""What is wrong, or may be, with the images of a set: each kind of finding has a code, and says what to do. Reads nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from im2im_zoo.data.check.file_findings import pictures, pixel_sizes, types
from im2im_zoo.data.check.finding import Finding, Look, Part, finding_of
from im2im_zoo.data.check.voxels import Voxels
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.splitting import likely_group
from im2im_zoo.recipe import Recipe

# Largest values of cameras of 8, 10, 12, 14 and 16 bits.
_FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_SATURATED = 0.01


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
        pixel_sizes,
        types,
        pictures,
    )
    found = [finding for rule in rules for finding in rule(looks, recipe)]
    return sorted(found, key=lambda finding: finding.severity)


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
    yield from finding_of(
        "leakage",
        "error",
        "the same image trains and validates, so that the validation says nothing; remove one of each",
        ((look, f"{look.part}, as {group[0].source}") for group in across for look in group[1:]),
    )
    yield from finding_of(
        "duplicate",
        "warning",
        "the same image is there more than once, and counts as often; keep one of each",
        ((look, f"as {group[0].source}") for group in within for look in group[1:]),
    )
    yield from finding_of(
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
    yield from finding_of(
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
    yield from finding_of(
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
            yield from finding_of(
                "empty-target",
                "error",
                f"no target of the {part} images has anything in it; check that these are the masks",
                ((look, "") for look in of_part),
            )
            empty = [look for look in empty if look.part != part]
    yield from finding_of(
        "empty-target",
        "warning",
        "targets have one value everywhere; keep them if these images hold nothing, else correct or remove them",
        ((look, "") for look in empty),
    )


def _labels(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    if recipe.output.task != "instance":
        return
    targets = list(_measured(looks, "target"))
    yield from finding_of(
        "labels",
        "error",
        "targets of an instance task are labels, but these have values that are no whole numbers from 0; give label images",
        ((look, "") for look, v in targets if not v.whole_numbers or v.lowest < 0),
    )
    yield from finding_of(
        "one-label",
        "warning",
        "targets have one object at most, as masks have, though the task is instance; number the objects (connected components), "
        "if there are several in an image",
        ((look, f"0 and {v.highest:g}") for look, v in targets if v.is_binary and v.lowest == 0),
    )


def _constant(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from finding_of(
        "constant-image",
        "warning",
        "images have one value everywhere; remove them, or export them anew",
        ((look, f"{v.lowest:g}") for look, v in _measured(looks, *sides) if v.is_constant),
    )


def _saturated(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from finding_of(
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
