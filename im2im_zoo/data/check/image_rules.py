"""Rules on the images of a data set; each kind of finding has a code and a message that names a remedy."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from im2im_zoo.core.sizes import LARGEST_WHOLE
from im2im_zoo.data.check.file_rules import (
    find_grey_colours,
    find_mixed_types,
    find_picture_formats,
    find_pixel_sizes,
)
from im2im_zoo.data.check.finding import DataFinding, ExaminedImage, Part, make_finding
from im2im_zoo.data.check.voxels import VoxelStatistics
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.splitting import guess_group
from im2im_zoo.recipe import Recipe

# Largest values of cameras of 8, 10, 12, 14 and 16 bits.
_FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_SATURATED = 0.01


def apply_rules(examined: Sequence[ExaminedImage], recipe: Recipe) -> list[DataFinding]:
    """Apply all rules to the images of a data set; return the findings, errors first."""
    rules: tuple[Callable[[Sequence[ExaminedImage], Recipe], Iterator[DataFinding]], ...] = (
        _find_copies,
        _find_related,
        _find_not_finite,
        _find_empty_targets,
        _find_bad_labels,
        _find_large_values,
        _find_constant,
        _find_saturated,
        find_pixel_sizes,
        find_mixed_types,
        find_picture_formats,
        find_grey_colours,
    )
    found = [finding for rule in rules for finding in rule(examined, recipe)]
    return sorted(found, key=lambda finding: finding.severity)


def _select_measured(
    examined: Sequence[ExaminedImage], *sides: Side
) -> Iterator[tuple[ExaminedImage, VoxelStatistics]]:
    return ((entry, entry.voxels) for entry in examined if entry.voxels is not None and entry.side in sides)


def _find_copies(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find inputs with the same voxels, on both sides of the split or on one."""
    same: dict[str, list[ExaminedImage]] = defaultdict(list)
    targets = {entry.name: voxels.fingerprint for entry, voxels in _select_measured(examined, "target")}
    for entry, voxels in _select_measured(examined, "input"):
        if not voxels.is_constant:  # constant images have a finding of their own
            same[voxels.fingerprint].append(entry)
    groups = [group for group in same.values() if len(group) > 1]
    across = [group for group in groups if len({entry.part for entry in group}) > 1]
    within = [group for group in groups if len({entry.part for entry in group}) == 1]
    yield from make_finding(
        "leakage",
        "error",
        "the same image is in training and in validation, so the validation is meaningless; remove one of each",
        ((entry, f"{entry.part}, as {group[0].source}") for group in across for entry in group[1:]),
    )
    yield from make_finding(
        "duplicate",
        "warning",
        "the same image occurs more than once and has more weight in training; keep one of each",
        ((entry, f"as {group[0].source}") for group in within for entry in group[1:]),
    )
    yield from make_finding(
        "contradiction",
        "warning",
        "the same image has different targets; keep the right one, unless they differ on purpose",
        (
            (entry, f"another target than {group[0].source}")
            for group in groups
            for entry in group[1:]
            if targets.get(entry.name) != targets.get(group[0].name)
        ),
    )


def _find_related(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find names that look like planes, time points or fields of one object, on both sides of the split."""
    if recipe.data.group is not None:  # the split already keeps groups together
        return
    parts: dict[str, dict[Part, ExaminedImage]] = defaultdict(dict)
    for entry in examined:
        group = guess_group(entry.name) if entry.side == "input" else None
        if group is not None:
            parts[group].setdefault(entry.part, entry)
    yield from make_finding(
        "related-images",
        "warning",
        "planes, time points or fields of the same object seem to be in both training and validation, so the validation looks "
        "better than results on new images will; keep them together with data.group (a regular expression of the part of the name "
        "that they share), or with folders train/ and val/ and data.split: folders",
        (
            (found["validation"], f"like {found['train'].name}, which trains")
            for found in parts.values()
            if len(found) == 2
        ),
    )


def _find_not_finite(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    yield from make_finding(
        "not-finite",
        "error",
        "some voxels are NaN or infinite; replace them in the file, for instance by 0",
        (
            (entry, f"{voxels.not_finite} of {voxels.count} voxels")
            for entry, voxels in _select_measured(examined, "input", "target", "cost")
            if voxels.not_finite
        ),
    )


def _find_empty_targets(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    if recipe.output.task == "regression":
        return
    targets = list(_select_measured(examined, "target"))
    empty = [entry for entry, voxels in targets if voxels.is_constant]
    for part in ("train", "validation"):
        of_part = [entry for entry, _ in targets if entry.part == part]
        if of_part and all(entry in empty for entry in of_part):
            yield from make_finding(
                "empty-target",
                "error",
                f"all targets of the {part} images are empty; check that these are the masks",
                ((entry, "") for entry in of_part),
            )
            empty = [entry for entry in empty if entry.part != part]
    yield from make_finding(
        "empty-target",
        "warning",
        "targets have one value everywhere; keep them if these images are empty, otherwise correct or remove them",
        ((entry, "") for entry in empty),
    )


def _find_bad_labels(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    if recipe.output.task != "instance":
        return
    targets = list(_select_measured(examined, "target"))
    yield from make_finding(
        "labels",
        "error",
        "targets of an instance task have to be label images, but these have values that are not whole numbers from 0; give label images",
        ((entry, "") for entry, v in targets if not v.whole_numbers or v.lowest < 0),
    )
    yield from make_finding(
        "one-label",
        "warning",
        "targets have at most one object, like masks, but the task is instance; number the objects (connected components) "
        "if an image has several",
        ((entry, f"0 and {v.highest:g}") for entry, v in targets if v.is_binary and v.lowest == 0),
    )


def _find_large_values(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find whole numbers that training refuses because float32 cannot represent them; the preprocessing may scale them."""
    for side, operations in (
        ("input", recipe.input.preprocessing),
        ("target", recipe.target.preprocessing),
    ):
        yield from make_finding(
            "large-values",
            "warning" if operations else "error",
            f"whole numbers above {LARGEST_WHOLE} cannot be told apart in float32, so labels would merge; relabel the images from 1, or "
            f"scale them in {side}.preprocessing",
            (
                (entry, f"{v.highest:.0f}")
                for entry, v in _select_measured(examined, side)  # type: ignore[arg-type]
                if entry.image.dtype.kind in "iu" and max(v.highest, -v.lowest) > LARGEST_WHOLE
            ),
        )


def _find_constant(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from make_finding(
        "constant-image",
        "warning",
        "images have one value everywhere; remove them, or export them again",
        ((entry, f"{v.lowest:g}") for entry, v in _select_measured(examined, *sides) if v.is_constant),
    )


def _find_saturated(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    yield from make_finding(
        "saturated-image",
        "warning",
        "images are saturated: many voxels have the largest value of the camera or the file; remove them, or acquire with less light",
        (
            (entry, f"{100 * v.at_highest / v.count:.1f} % at {v.highest:g}")
            for entry, v in _select_measured(examined, *sides)
            if v.highest in _FULL_SCALES
            and v.at_highest > _SATURATED * v.count
            and not v.is_binary
            and not v.is_constant
        ),
    )
