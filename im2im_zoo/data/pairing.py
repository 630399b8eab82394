"""Which input image goes with which target, and which pairs train and which validate. Opens no image.

Everything is decided by names, so the same files give the same pairs in the same order on every machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.data.files import by_stem, hash_content, image_files, is_image_file, list_files, stem_of
from im2im_zoo.data.table import read_table
from im2im_zoo.errors import DataError
from im2im_zoo.recipe import Data

_FOLDERS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Pair:
    """An input image and its target; the same file if they are channels of it."""

    name: str
    input: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that train and those that validate, each by name."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]


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
    _check_keys(data)
    if data.pairing == "csv":
        pairs = _from_table(data, seed)
    elif data.split == "folders":
        pairs = Pairs(*(_in_folder(data.path / part, data) for part in _FOLDERS))
    else:
        _refuse_unsplit_folders(data)
        pairs = split_randomly(_in_folder(data.path, data), data.validation, seed)
    _refuse_shared(pairs)
    return pairs


def split_randomly(pairs: Sequence[Pair], fraction: float, seed: int) -> Pairs:
    """The same split for the same names, seed and fraction; at least one pair on each side.

    The names are ranked by a hash, so adding images moves few of the others to the other side.

    Raises:
        DataError: there is only one pair.
    """
    if len(pairs) < 2:
        raise DataError(
            f"there is only the pair {pairs[0].name!r} ({pairs[0].input}), which cannot both train and validate: "
            "add images; or cut it in two, put the halves into folders train/ and val/, and set data.split: folders"
        )
    ranked = sorted(pairs, key=lambda p: hashlib.sha256(f"{seed}/{p.name}".encode()).digest())
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    chosen = {pair.name for pair in ranked[:count]}
    return Pairs(
        train=tuple(p for p in pairs if p.name not in chosen),
        validation=tuple(p for p in pairs if p.name in chosen),
    )


def hash_pairs(pairs: Pairs) -> str:
    """SHA-256 over the names and contents of all images and over which of them validate.

    It does not depend on where the files are. Each file is read once.
    """
    known: dict[Path, str] = {}
    lines = []
    for part, group in zip(_FOLDERS, (pairs.train, pairs.validation), strict=True):
        for pair in group:
            for path in {pair.input, pair.target} - known.keys():
                known[path] = hash_content(path)
            lines.append(f"{part}|{pair.name}|{known[pair.input]}|{known[pair.target]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _check_keys(data: Data) -> None:
    if not data.path.exists():
        raise DataError(
            f"data.path: {data.path.absolute()} does not exist; set --data.path to where the images are"
        )
    if data.split == "column" and data.pairing != "csv":
        raise DataError(f"data.split: column needs data.pairing: csv; it is {data.pairing}")
    if data.split == "folders" and data.pairing == "csv":
        raise DataError(
            "data.split: folders does not go with data.pairing: csv; use data.split: column or random"
        )
    if data.pairing == "channels":
        if data.input is not None or data.target is not None:
            raise DataError(
                "data.input and data.target mean nothing with data.pairing: channels; name the channels in "
                "data.input_channels and data.target_channels"
            )
        if data.input_channels is None or data.target_channels is None:
            raise DataError(
                "data.pairing: channels needs data.input_channels and data.target_channels: which channels of the "
                "files are the input and which the target, by name or index"
            )
    if data.pairing != "csv" and data.pairing != "channels" and not data.path.is_dir():
        raise DataError(f"data.path: {data.path} is a file; data.pairing: {data.pairing} needs a folder")


def _in_folder(folder: Path, data: Data) -> tuple[Pair, ...]:
    if data.pairing == "folders":
        return _by_folders(folder, data.input or "images", data.target or "targets")
    if data.pairing == "suffixes":
        input_suffix = "_IM" if data.input is None else data.input
        return _by_suffixes(folder, input_suffix, "_GT" if data.target is None else data.target)
    files = [folder] if is_image_file(folder) else image_files(folder, "data.path")
    return tuple(Pair(stem, path, path) for stem, path in sorted(by_stem(files).items()))


def _by_folders(folder: Path, input_name: str, target_name: str) -> tuple[Pair, ...]:
    inputs = by_stem(image_files(folder / input_name, "inputs (data.input)"))
    targets = by_stem(image_files(folder / target_name, "targets (data.target)"))
    return _match(inputs, targets, "their names without the suffix have to be equal")


def _by_suffixes(folder: Path, input_suffix: str, target_suffix: str) -> tuple[Pair, ...]:
    if input_suffix == target_suffix:
        raise DataError(f"data.input and data.target are both {input_suffix!r}; they have to differ")
    stems = by_stem(image_files(folder, "data.path"))
    # The longer one first, so that an empty or shared ending (`` and `_mask`) still tells them apart.
    longer, shorter = sorted((input_suffix, target_suffix), key=len, reverse=True)
    found: dict[str, dict[str, Path]] = {longer: {}, shorter: {}}
    for stem, path in stems.items():
        ending = next((s for s in (longer, shorter) if stem.endswith(s) and stem != s), None)
        if ending is not None:
            found[ending][stem.removesuffix(ending)] = path
    for key, suffix in (("input", input_suffix), ("target", target_suffix)):
        if not found[suffix]:
            raise DataError(
                f"data.{key}: no name in {folder.absolute()} ends in {suffix!r} (before the file format); "
                f"there are\n{list_files(p.name for p in stems.values())}"
            )
    wanted = f"an input name{input_suffix} needs a target name{target_suffix}"
    return _match(found[input_suffix], found[target_suffix], wanted)


def _match(inputs: dict[str, Path], targets: dict[str, Path], rule: str) -> tuple[Pair, ...]:
    lone_inputs = [path for name, path in inputs.items() if name not in targets]
    lone_targets = [path for name, path in targets.items() if name not in inputs]
    if lone_inputs or lone_targets:
        lines = [f"images that do not pair ({rule}); add what is missing or move these away"]
        if lone_inputs:
            lines.append(f"inputs without a target:\n{list_files(lone_inputs)}")
        if lone_targets:
            lines.append(f"targets without an input:\n{list_files(lone_targets)}")
        raise DataError("\n".join(lines))
    return tuple(Pair(name, inputs[name], targets[name]) for name in sorted(inputs))


def _from_table(data: Data, seed: int) -> Pairs:
    columns = (data.input or "input", data.target or "target")
    rows = read_table(data.path, *columns, with_split=data.split == "column")
    names = _unique_names([row.input for row in rows], data.path.parent)
    pairs = [Pair(name, row.input, row.target) for name, row in zip(names, rows, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: pairs[i].name)
    if data.split == "random":
        return split_randomly([pairs[i] for i in order], data.validation, seed)
    parts = [tuple(pairs[i] for i in order if rows[i].split == part) for part in _FOLDERS]
    for part, found in zip(_FOLDERS, parts, strict=True):
        if not found:
            raise DataError(f"{data.path}: no row says {part!r} in the column 'split'; at least one has to")
    return Pairs(*parts)


def _unique_names(paths: Sequence[Path], root: Path) -> list[str]:
    stems = [stem_of(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    # Plates and wells repeat file names: then the folders are part of the name.
    relative = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    return ["-".join((*p.parent.parts, stem_of(p))).replace("/", "") for p in relative]


def _refuse_unsplit_folders(data: Data) -> None:
    if {data.input, data.target} & set(_FOLDERS):
        return
    if all((data.path / part).is_dir() for part in _FOLDERS):
        raise DataError(
            f"{data.path} holds the folders train/ and val/, but data.split is random; set data.split: folders to "
            "use them, or move them away"
        )


def _refuse_shared(pairs: Pairs) -> None:
    """Refuse images that both train and validate, under one path or as copies of the same name."""
    # Only inputs are compared: targets of empty images may well be equal.
    places = {pair.input.resolve() for pair in pairs.train}
    named = {(pair.name, pair.input.name): pair.input for pair in pairs.train}
    shared = [
        pair.input
        for pair in pairs.validation
        if pair.input.resolve() in places
        or _same_content(pair.input, named.get((pair.name, pair.input.name)))
    ]
    if shared:
        raise DataError(
            "images that are both in training and in validation, which would make the validation worthless; "
            f"remove them from one:\n{list_files(shared)}"
        )


def _same_content(path: Path, other: Path | None) -> bool:
    if other is None or path.is_dir() or other.is_dir() or path.stat().st_size != other.stat().st_size:
        return False
    return hash_content(path) == hash_content(other)
