"""Which images belong together, and which of them train and which validate. Opens no image.

Everything is decided by names, so the same files give the same pairs in the same order on every machine.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.pairing.files import by_stem, fields_of, image_files, list_files, well_of
from im2im_zoo.data.pairing.keys import check_keys
from im2im_zoo.data.pairing.matching import Matched, Side, in_subfolder, match_folders, match_suffixes
from im2im_zoo.data.pairing.pairs import PARTS, Pair, Pairs, refuse_shared
from im2im_zoo.data.pairing.splitting import groups_of, validating
from im2im_zoo.data.pairing.table import given_table, read_table, rows_of
from im2im_zoo.data.pairing.time_points import time_points
from im2im_zoo.images import Place
from im2im_zoo.images.names import stem_of
from im2im_zoo.images.registry import is_image_file
from im2im_zoo.recipe import Data


def find_pairs(data: Data, seed: int) -> Pairs:
    """The pairs that a recipe's `data` describes.

    Args:
        data: where and how; see `recipe.Data`.
        seed: the recipe's; it decides the random split. It has no default because two callers with different
            seeds would train on each other's validation images.

    Raises:
        DataError: nothing found, files without a partner, doubled names, too few pairs for a split; the message
            lists the files.
    """
    check_keys(data)
    if data.pairing == "csv":
        pairs = _from_table(data, seed)
    elif data.pairing == "unpaired":
        pairs = _unpaired(data, seed)
    elif data.split == "folders":
        train, validation = (_in_folder(data.path / part, data) for part in PARTS)
        pairs = _parted(train, validation, *(_groups(part, data) for part in (train, validation)))
    else:
        _refuse_unsplit_folders(data)
        found = _in_folder(data.path, data)
        pairs = _split_randomly(found, _groups(found, data), data, seed)
    refuse_shared(pairs)
    return replace(pairs, validation=_with_truth(pairs.validation, data)) if data.pairing == "self" else pairs


def _split_randomly(pairs: Sequence[Pair], groups: Sequence[str], data: Data, seed: int) -> Pairs:
    """The same split for the same names, groups, seed and fraction or fold; at least one pair on each side.

    Raises:
        DataError: there is only one pair, or group.
    """
    if len(pairs) < 2:
        raise DataError(
            f"there is only the pair {pairs[0].name!r} ({pairs[0].input}), which cannot both train and validate: "
            "add images; or cut it in two, put the halves into folders train/ and val/, and set data.split: folders"
        )
    chosen = validating([pair.name for pair in pairs], groups, data, seed)
    return Pairs(
        train=tuple(p for p in pairs if p.name not in chosen),
        validation=tuple(p for p in pairs if p.name in chosen),
    )


def _parted(
    train: Sequence[Pair], validation: Sequence[Pair], train_groups: Sequence[str], held_out: Sequence[str]
) -> Pairs:
    """The pairs as a person has split them.

    Raises:
        DataError: a group is on both sides.
    """
    shared = sorted(set(train_groups) & set(held_out))
    if shared and list(train_groups) != [pair.name for pair in train]:
        raise DataError(
            f"data.group: groups are both in training and in validation, which would make the validation worthless; move each "
            f"to one side:\n{list_files(shared)}"
        )
    return Pairs(tuple(train), tuple(validation))


def _groups(pairs: Sequence[Pair], data: Data) -> list[str]:
    names = [pair.name for pair in pairs]
    if data.group is not None:
        return groups_of(names, data.group)
    # Fields of a well, and time points of a movie, are alike: they are not parted even if nobody says so.
    return [_natural_group(pair) for pair in pairs]


def _natural_group(pair: Pair) -> str:
    known = well_of(pair.input)
    return known or (pair.name if pair.time is None else str(pair.input))


def _in_folder(folder: Path, data: Data) -> tuple[Pair, ...]:
    if data.pairing == "channels":
        files = fields_of([folder]) if is_image_file(folder) else image_files(folder, "data.path")
        stems = sorted(by_stem(files).items())
        same = (Pair(stem, path, path, path if data.has_cost else None) for stem, path in stems)
        return time_points(same, data)
    cost: dict[Side, str] = {} if data.cost is None else {"cost": data.cost}
    return time_points(_pairs(_matched(folder, data, cost), data), data)


def _matched(folder: Path, data: Data, cost: Mapping[Side, str]) -> list[Matched]:
    """The files of each name, for each of the images that an input is joined of."""
    target = _target(data)
    if data.pairing == "suffixes":
        return [match_suffixes(folder, {"input": name, "target": target, **cost}) for name in data.inputs]
    if data.pairing == "self":
        return [match_folders(folder, {"input": name, **cost}) for name in data.inputs]
    return [match_folders(folder, {"input": name, "target": target, **cost}) for name in data.inputs]


def _target(data: Data) -> str:
    return data.target or {"suffixes": "_GT", "csv": "target"}.get(data.pairing, "targets")


def _pairs(matched: Sequence[Matched], data: Data) -> tuple[Pair, ...]:
    """Pairs of what was found for each part of the input.

    Raises:
        DataError: of an input without a target a part is missing.
    """
    first, *others = matched
    for name, part in zip(data.inputs[1:], others, strict=True):
        lone = sorted(first.keys() ^ part.keys())
        if lone:
            raise DataError(
                f"data.input: in {data.inputs[0]!r} and {name!r} the names have to be equal; these are in one of the two:\n"
                f"{list_files(lone)}"
            )
    return tuple(
        Pair(
            name,
            files["input"],
            files.get("target", files["input"]),
            files.get("cost"),
            more=tuple(part[name]["input"] for part in others),
        )
        for name, files in first.items()
    )


def _with_truth(pairs: Sequence[Pair], data: Data) -> tuple[Pair, ...]:
    """The pairs of `pairing: self`, with what lies beside their images to measure results against.

    Raises:
        DataError: `data.target` names a folder that is not there.
    """
    name = _target(data)
    folder = data.path / "val" if data.split == "folders" else data.path
    if data.target is None and not (folder / name).is_dir():
        return tuple(pairs)
    known = in_subfolder(folder, "target", name)
    return tuple(replace(pair, truth=known.get(stem_of(pair.input))) for pair in pairs)


def _unpaired(data: Data, seed: int) -> Pairs:
    """Images that train without partners, and pairs of equal names that validate; no image does both."""
    random = data.split == "random"
    if random:
        _refuse_unsplit_folders(data)
    folder = data.path if random else data.path / "train"
    sides: dict[Side, str] = {"input": data.inputs[0], "target": _target(data)}
    inputs, targets = (in_subfolder(folder, side, name) for side, name in sides.items())
    if not random:
        validation = _pairs([match_folders(data.path / "val", sides)], data)
        return Pairs((), validation, _by_name(inputs), _by_name(targets))
    common = sorted(inputs.keys() & targets.keys())
    most = min(len(inputs), len(targets)) - 1
    if not common or most < 1:
        raise DataError(
            f"data.pairing: unpaired needs pairs to validate with, and other images to train with; in {folder} there "
            f"are {len(inputs)} inputs and {len(targets)} targets, of which {len(common)} have equal names: give the "
            "two images of some pairs the same name; or put the pairs into val/, all others into train/, and set "
            "data.split: folders"
        )
    ranked = sorted(common, key=lambda name: sha256_of(f"{seed}/{name}"))
    chosen = set(ranked[: min(max(1, round(data.validation * len(common))), most)])
    validation = tuple(Pair(name, inputs.pop(name), targets.pop(name)) for name in common if name in chosen)
    return Pairs((), validation, _by_name(inputs), _by_name(targets))


def _by_name(files: dict[str, Path]) -> tuple[Path, ...]:
    return tuple(files[name] for name in sorted(files))


def _from_table(data: Data, seed: int) -> Pairs:
    table = given_table(data.pairs, data.path) if data.pairs else read_table(data.path)
    rows = rows_of(
        table, data.inputs, _target(data), data.cost, data.group, with_split=data.split == "column"
    )
    names = _unique_names([row.inputs[0] for row in rows], table.folder)
    if data.time_points:
        raise DataError(
            "data.time_points does not go with data.pairing: csv; pair the movies by their names, or save each time point as a "
            "file of its own"
        )
    pairs = [
        Pair(name, row.inputs[0], row.target, row.cost, more=row.inputs[1:])
        for name, row in zip(names, rows, strict=True)
    ]
    groups = [row.group or _natural_group(pair) for row, pair in zip(rows, pairs, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: pairs[i].name)
    if data.split == "random":
        return _split_randomly([pairs[i] for i in order], [groups[i] for i in order], data, seed)
    parts = [tuple(pairs[i] for i in order if rows[i].split == part) for part in PARTS]
    for part, found in zip(PARTS, parts, strict=True):
        if not found:
            raise DataError(f"{table.name}: no row says {part!r} in the column 'split'; at least one has to")
    members = [[groups[i] for i in order if rows[i].split == part] for part in PARTS]
    return _parted(parts[0], parts[1], members[0], members[1])


def _unique_names(paths: Sequence[Place], root: Path) -> list[str]:
    stems = [stem_of(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    # Plates and wells repeat file names: then the folders are part of the name.
    relative = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    return [re.sub("[/:]", "", "-".join((*p.parent.parts, stem_of(p)))) for p in relative]


def _refuse_unsplit_folders(data: Data) -> None:
    if {*data.inputs, data.target} & set(PARTS):
        return
    if all((data.path / part).is_dir() for part in PARTS):
        raise DataError(
            f"{data.path} holds the folders train/ and val/, but data.split is random; set data.split: folders to "
            "use them, or move them away"
        )
