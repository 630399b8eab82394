"""Which images validate: a random part or a fold of them, and never a part of a group. Knows names alone."""

import re
from collections import Counter
from collections.abc import Sequence

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.recipe import Data

# What programs append to a name for a plane, a time point, a field of a well or a cut-out, with its number.
_COUNTER = re.compile(
    r"(?:^|[_\-. ])(?:z|t|zslice|slice|plane|frame|time|timepoint|tp|crop|tile|patch|field|fov|f|site|s)[_\-]?\d+(?![a-z\d])",
    re.IGNORECASE,
)


def validating(names: Sequence[str], groups: Sequence[str], data: Data, seed: int) -> set[str]:
    """The names that validate: those of `data.fold`, or of whole groups until they are `data.validation` of all.

    Groups are ranked by a hash, so adding images moves few of the others to the other side. Some names are left to train.

    Args:
        names: of the images, all different.
        groups: of each name the group that it belongs to, and is not parted from.
        data: its `validation`, `folds` and `fold` are used.
        seed: the recipe's.

    Raises:
        DataError: too few groups for the split.
    """
    sizes = Counter(groups)
    least = data.folds or 2
    if len(sizes) < least:
        raise DataError(
            f"there are {len(sizes)} groups of images ({', '.join(list(sizes)[:5])}), and {least} are needed: "
            + (
                "make data.folds smaller"
                if data.folds
                else "add images, or let data.group tell more of them apart"
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


def groups_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each name: what the pattern finds in it, its first group if it has one; without one, each is its own.

    Raises:
        DataError: it is no regular expression, or finds nothing in a name.
    """
    if pattern is None:
        return list(names)
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise DataError(f"data.group: {pattern!r} is no regular expression: {error}") from error
    lost = [name for name, match in zip(names, found, strict=True) if match is None]
    if lost:
        raise DataError(
            f"data.group: {pattern!r} finds nothing in the name {lost[0]!r} ({len(lost)} of {len(names)} names); every image "
            "needs a group"
        )
    return [str(match[match.re.groups and 1]) for match in found if match is not None]


def likely_group(name: str) -> str | None:
    """What is left of a name without the numbers of planes, time points, fields and cut-outs; None if it has none.

    Of a name that is nothing else, as `s1_z03`, the last one is left out.
    """
    found = list(_COUNTER.finditer(name))
    left = _COUNTER.sub("", name) or (name[: found[-1].start()] if found else "")
    return left if left and left != name else None
