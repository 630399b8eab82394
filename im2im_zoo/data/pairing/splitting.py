"""Split of images into training and validation by name: a random part or a fold, never splitting a group."""

import re
from collections import Counter
from collections.abc import Sequence

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.recipe import Data

# Suffixes that programs append to a name for a plane, a time point, a field of a well or a crop, with its number.
_COUNTER = re.compile(
    r"(?:^|[_\-. ])(?:z|t|zslice|slice|plane|frame|time|timepoint|tp|crop|tile|patch|field|fov|f|site|s)[_\-]?\d+(?![a-z\d])",
    re.IGNORECASE,
)


def choose_validation(names: Sequence[str], groups: Sequence[str], data: Data, seed: int) -> set[str]:
    """Choose the validation images: those of `data.fold`, or whole groups until they are the share `data.validation`.

    Groups are ranked by a hash, so added images move few of the others to the other side. At least one group trains.

    Args:
        names: of the images, all different.
        groups: the group of each name, which is not split.
        data: its `validation`, `folds` and `fold` are used.
        seed: the recipe's.

    Returns:
        The names of the validation images.

    Raises:
        DataError: too few groups for the split.
    """
    sizes = Counter(groups)
    least = data.folds or 2
    if len(sizes) < least:
        raise DataError(
            f"there are only {len(sizes)} groups of images ({', '.join(list(sizes)[:5])}), but {least} are needed: "
            + (
                "make data.folds smaller"
                if data.folds
                else "add images, or change data.group so that it makes more groups"
            )
        )
    ranked = sorted(sizes, key=lambda group: sha256_of(f"{seed}/{group}"))
    if data.folds is not None:
        chosen = ranked[data.fold :: data.folds]
    else:
        chosen, wanted = ranked[:1], round(data.validation * len(names))
        for group in ranked[1:-1]:
            if sum(sizes[g] for g in chosen) >= wanted:
                break
            chosen.append(group)
    return {name for name, group in zip(names, groups, strict=True) if group in set(chosen)}


def find_groups(names: Sequence[str], pattern: str | None) -> list[str]:
    """Find the group of each name by a regular expression.

    Args:
        names: of the images.
        pattern: its match, or its first group if it has one, is the group of a name; None: each name is a group.

    Raises:
        DataError: an invalid regular expression, or a name without a match.
    """
    if pattern is None:
        return list(names)
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise DataError(
            f"data.group: {pattern!r} is not a regular expression: {error}; correct it"
        ) from error
    lost = [name for name, match in zip(names, found, strict=True) if match is None]
    if lost:
        raise DataError(
            f"data.group: {pattern!r} does not match the name {lost[0]!r} ({len(lost)} of {len(names)} names); change it so that "
            "it matches every name"
        )
    return [str(match[match.re.groups and 1]) for match in found if match is not None]


def guess_group(name: str) -> str | None:
    """Guess the group of a name: the name without the numbers of planes, time points, fields and crops; None if it has none.

    A name of such numbers only, as `s1_z03`, loses the last one.
    """
    found = list(_COUNTER.finditer(name))
    left = _COUNTER.sub("", name) or (name[: found[-1].start()] if found else "")
    return left if left and left != name else None
