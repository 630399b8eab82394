"""Find the pairs of a recipe and split them into training and validation.

Only names matter, so the same files give the same pairs in the same order on every machine.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.pairing.files import (
    expand_plates,
    find_well,
    format_file_list,
    index_by_stem,
    list_images,
)
from im2im_zoo.data.pairing.keys import check_keys
from im2im_zoo.data.pairing.matching import (
    FileChoice,
    Matched,
    Side,
    Sides,
    list_subfolder,
    list_unpaired,
    match_folders,
    match_patterns,
    match_suffixes,
    sides_by_pattern,
    sides_by_suffix,
    sides_in_folders,
)
from im2im_zoo.data.pairing.pairs import PARTS, Pair, Pairs, refuse_overlap, split_time_points
from im2im_zoo.data.pairing.recognition import find_targets
from im2im_zoo.data.pairing.splitting import choose_validation, find_groups
from im2im_zoo.data.pairing.table import Row, Table, make_table, parse_rows, read_table
from im2im_zoo.images import Place
from im2im_zoo.images.names import stem_of
from im2im_zoo.images.registry import is_image_file
from im2im_zoo.recipe import Data


def find_pairs(data: Data, seed: int) -> Pairs:
    """Find the pairs that a recipe's `data` section describes.

    Args:
        data: the section.
        seed: the recipe's seed, for the random split. It has no default because two callers with different
            seeds would train on each other's validation images.

    Raises:
        DataError: no images, files without a partner, names that occur twice, too few pairs for a split; the message
            lists the files.
    """
    check_keys(data)
    if data.pairing == "csv":
        pairs = _find_in_table(data, seed)
    elif data.pairing == "unpaired":
        pairs = _find_unpaired(data, seed)
    elif data.split == "folders":
        train, validation = (_find_in_folder(data.path / part, data) for part in data.split_folders)
        pairs = _make_given_split(
            train, validation, *(_find_pair_groups(part, data) for part in (train, validation))
        )
    else:
        _refuse_unsplit_folders(data)
        found = _find_in_folder(data.path, data)
        pairs = _split_randomly(found, _find_pair_groups(found, data), data, seed)
    refuse_overlap(pairs)
    return replace(pairs, validation=_add_truth(pairs.validation, data)) if data.pairing == "self" else pairs


def list_pairs(data: Data) -> tuple[Pair, ...]:
    """List all pairs, whatever the split; of a movie, one for all time points.

    Raises:
        DataError: as `find_pairs`, but a single pair is listed.
    """
    check_keys(data)
    whole = data.model_copy(update={"time_points": False})
    if data.pairing == "csv":
        return _read_pairs(whole)[0]
    folders = [data.path / part for part in data.split_folders] if data.split == "folders" else [data.path]
    return tuple(pair for folder in folders for pair in _find_in_folder(folder, whole))


def _split_randomly(pairs: Sequence[Pair], groups: Sequence[str], data: Data, seed: int) -> Pairs:
    """Split pairs by names, groups, seed and fraction or fold, with at least one pair on each side.

    Raises:
        DataError: there is only one pair, or group.
    """
    if len(pairs) < 2:
        raise DataError(
            f"there is only one pair, {pairs[0].name!r} ({pairs[0].input}), which cannot both train and validate: "
            "add images; or cut it in two, put the halves into folders train/ and val/, and set data.split: folders"
        )
    chosen = choose_validation([pair.name for pair in pairs], groups, data, seed)
    return Pairs(
        train=tuple(p for p in pairs if p.name not in chosen),
        validation=tuple(p for p in pairs if p.name in chosen),
    )


def _make_given_split(
    train: Sequence[Pair], validation: Sequence[Pair], train_groups: Sequence[str], held_out: Sequence[str]
) -> Pairs:
    """Make the split that the user has given by folders or a column.

    Raises:
        DataError: a group is on both sides.
    """
    shared = sorted(set(train_groups) & set(held_out))
    if shared and list(train_groups) != [pair.name for pair in train]:
        raise DataError(
            "data.group: groups are in both training and validation, so the validation would be too good; move each "
            f"to one side:\n{format_file_list(shared)}"
        )
    return Pairs(tuple(train), tuple(validation))


def _find_pair_groups(pairs: Sequence[Pair], data: Data) -> list[str]:
    names = [pair.name for pair in pairs]
    if data.group is not None:
        return find_groups(names, data.group)
    # Fields of a well, and time points of a movie, are similar, so they always stay on one side.
    return [_find_natural_group(pair) for pair in pairs]


def _find_natural_group(pair: Pair) -> str:
    known = find_well(pair.input)
    return known or (pair.name if pair.time is None else str(pair.input))


def _find_in_folder(folder: Path, data: Data) -> tuple[Pair, ...]:
    if data.pairing == "channels":
        files = expand_plates([folder]) if is_image_file(folder) else list_images(folder, "data.path")
        stems = sorted(index_by_stem(files).items())
        same = (Pair(stem, path, path, path if data.has_cost else None) for stem, path in stems)
        return split_time_points(same, data)
    match = {"suffixes": match_suffixes, "patterns": match_patterns}.get(data.pairing, match_folders)
    choice = FileChoice(data.ignore, data.skip_unpaired)
    matched = [match(folder, names, choice) for names in _side_names(data)]
    if data.pairing == "self":
        _refuse_targets(matched)
    return split_time_points(_make_pairs(matched, data), data)


def _side_names(data: Data) -> list[Mapping[Side, str]]:
    """Return subfolder, suffix or pattern of each side, once for each file that an input is joined from."""
    target: dict[Side, str] = {} if data.pairing == "self" else {"target": _target_name(data)}
    cost: dict[Side, str] = {} if data.cost is None else {"cost": data.cost}
    return [{"input": name, **target, **cost} for name in data.inputs]


def _refuse_targets(matched: Sequence[Matched]) -> None:
    """Refuse masks and other targets among images that are their own targets.

    Raises:
        DataError: by their names, files are the targets of others; the message lists them.
    """
    found = find_targets([files["input"] for names in matched for files in names.values()])
    if found is not None:
        raise DataError(
            f"data.pairing: self: by their names, some images are the targets of others; set data.ignore: ['{found.wildcard}'] to "
            f"train without them, or pair them (im2im-zoo new FOLDER):\n{format_file_list(found.files)}"
        )


def find_skipped(data: Data) -> list[Path]:
    """List the images without partners that `data.skip_unpaired` leaves out.

    Raises:
        DataError: as `find_pairs`.
    """
    if not data.skip_unpaired or data.pairing not in ("folders", "suffixes", "patterns"):
        return []
    kinds: dict[str, Callable[[Path, Mapping[Side, str], FileChoice], Sides]] = {
        "folders": sides_in_folders,
        "suffixes": sides_by_suffix,
        "patterns": sides_by_pattern,
    }
    folders = [data.path / part for part in data.split_folders] if data.split == "folders" else [data.path]
    choice = FileChoice(data.ignore)
    found = [
        path
        for folder in folders
        for names in _side_names(data)
        for path in list_unpaired(kinds[data.pairing](folder, names, choice))
    ]
    return list(dict.fromkeys(found))


def _target_name(data: Data) -> str:
    return data.target or {"suffixes": "_GT", "csv": "target"}.get(data.pairing, "targets")


def _make_pairs(matched: Sequence[Matched], data: Data) -> tuple[Pair, ...]:
    """Make pairs of the matched files of each part of the input.

    Raises:
        DataError: a part of an input is missing.
    """
    first, *others = matched
    for name, part in zip(data.inputs[1:], others, strict=True):
        lone = sorted(first.keys() ^ part.keys())
        if lone:
            raise DataError(
                f"data.input: {data.inputs[0]!r} and {name!r} need the same names; add or remove these, which are in only one:\n"
                f"{format_file_list(lone)}"
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


def _add_truth(pairs: Sequence[Pair], data: Data) -> tuple[Pair, ...]:
    """Add the images that results are evaluated against to the pairs of `pairing: self`, where they exist.

    Raises:
        DataError: the folder in `data.target` does not exist.
    """
    name = _target_name(data)
    folder = data.path / data.split_folders[1] if data.split == "folders" else data.path
    if data.target is None and not (folder / name).is_dir():
        return tuple(pairs)
    known = list_subfolder(folder, "target", name)
    return tuple(replace(pair, truth=known.get(stem_of(pair.input))) for pair in pairs)


def _find_unpaired(data: Data, seed: int) -> Pairs:
    """Find images that train without partners, and pairs of equal names that validate; no image does both."""
    random = data.split == "random"
    if random:
        _refuse_unsplit_folders(data)
    folder = data.path if random else data.path / data.split_folders[0]
    sides: dict[Side, str] = {"input": data.inputs[0], "target": _target_name(data)}
    inputs, targets = (list_subfolder(folder, side, name) for side, name in sides.items())
    if not random:
        validation = _make_pairs([match_folders(data.path / data.split_folders[1], sides)], data)
        return Pairs((), validation, _sort_by_name(inputs), _sort_by_name(targets))
    common = sorted(inputs.keys() & targets.keys())
    most = min(len(inputs), len(targets)) - 1
    if not common or most < 1:
        raise DataError(
            f"data.pairing: unpaired needs pairs for validation and other images for training, but {folder} has "
            f"{len(inputs)} inputs and {len(targets)} targets, of which {len(common)} have equal names: give the "
            "two images of some pairs the same name; or put the pairs into val/, all others into train/, and set "
            "data.split: folders"
        )
    ranked = sorted(common, key=lambda name: sha256_of(f"{seed}/{name}"))
    chosen = set(ranked[: min(max(1, round(data.validation * len(common))), most)])
    validation = tuple(Pair(name, inputs.pop(name), targets.pop(name)) for name in common if name in chosen)
    return Pairs((), validation, _sort_by_name(inputs), _sort_by_name(targets))


def _sort_by_name(files: dict[str, Path]) -> tuple[Path, ...]:
    return tuple(files[name] for name in sorted(files))


def _read_pairs(data: Data) -> tuple[tuple[Pair, ...], list[Row], Table]:
    """Read the pairs of a table, in its order."""
    table = make_table(data.pairs, data.path) if data.pairs else read_table(data.path)
    rows = parse_rows(
        table, data.inputs, _target_name(data), data.cost, data.group, with_split=data.split == "column"
    )
    names = _make_unique_names([row.inputs[0] for row in rows], table.folder)
    if data.time_points:
        raise DataError(
            "data.time_points cannot be combined with data.pairing: csv; pair the movies by their names, or save each time point "
            "as a file"
        )
    pairs = tuple(
        Pair(name, row.inputs[0], row.target, row.cost, more=row.inputs[1:])
        for name, row in zip(names, rows, strict=True)
    )
    return pairs, rows, table


def _find_in_table(data: Data, seed: int) -> Pairs:
    pairs, rows, table = _read_pairs(data)
    groups = [row.group or _find_natural_group(pair) for row, pair in zip(rows, pairs, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: pairs[i].name)
    if data.split == "random":
        return _split_randomly([pairs[i] for i in order], [groups[i] for i in order], data, seed)
    parts = [tuple(pairs[i] for i in order if rows[i].split == part) for part in PARTS]
    for part, found in zip(PARTS, parts, strict=True):
        if not found:
            raise DataError(
                f"{table.name}: no row has {part!r} in the column 'split'; set it in at least one row"
            )
    members = [[groups[i] for i in order if rows[i].split == part] for part in PARTS]
    return _make_given_split(parts[0], parts[1], members[0], members[1])


def _make_unique_names(paths: Sequence[Place], root: Path) -> list[str]:
    stems = [stem_of(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    # Plates and wells repeat file names, so the folders become part of the name.
    relative = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    return [re.sub("[/:]", "", "-".join((*p.parent.parts, stem_of(p)))) for p in relative]


def _refuse_unsplit_folders(data: Data) -> None:
    if {*data.inputs, data.target} & set(PARTS) or data.pairing == "patterns":
        return
    if all((data.path / part).is_dir() for part in PARTS):
        raise DataError(
            f"{data.path} has the folders train/ and val/, but data.split is random; set data.split: folders to "
            "use them, or move them away"
        )
