"""Images that belong together by their names: in subfolders, or by suffixes in one folder. Opens none, splits none."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Literal

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.files import by_stem, image_files, list_files

Side = Literal["input", "target", "cost"]
Matched = dict[str, dict[Side, Path]]
"""The files of each name."""

_WORDS: dict[Side, str] = {"input": "inputs", "target": "targets", "cost": "cost maps"}


def in_subfolder(folder: Path, side: Side, name: str) -> dict[str, Path]:
    """The images of one subfolder by their stems.

    Raises:
        DataError: no such folder, no image in it, or two formats of one stem.
    """
    return by_stem(image_files(folder / name, f"{_WORDS[side]} (data.{side})"))


def match_folders(folder: Path, names: Mapping[Side, str]) -> Matched:
    """The images of subfolders that have the same stem, by that stem.

    Args:
        folder: holds the subfolders.
        names: of the subfolders; of the cost maps only if there are any.

    Raises:
        DataError: as `in_subfolder`; or images without partners, which the message lists.
    """
    found = {side: in_subfolder(folder, side, name) for side, name in names.items()}
    return _match(found, "their names without the suffix have to be equal")


def match_suffixes(folder: Path, suffixes: Mapping[Side, str]) -> Matched:
    """The images of one folder that differ only in the ending of their stem, by what is left of it.

    Raises:
        DataError: no image, two formats of one stem, equal suffixes, one that no image has, or images without
            partners.
    """
    for (one, suffix), (other, same) in combinations(suffixes.items(), 2):
        if suffix == same:
            raise DataError(f"data.{one} and data.{other} are both {suffix!r}; they have to differ")
    stems = by_stem(image_files(folder, "data.path"))
    # The longer ones first, so that an empty or shared ending (`` and `_mask`) still tells them apart.
    ordered = sorted(suffixes.values(), key=len, reverse=True)
    endings: dict[str, dict[str, Path]] = {suffix: {} for suffix in ordered}
    for stem, path in stems.items():
        ending = next((s for s in ordered if stem.endswith(s) and stem != s), None)
        if ending is not None:
            endings[ending][stem.removesuffix(ending)] = path
    for side, suffix in suffixes.items():
        if not endings[suffix]:
            raise DataError(
                f"data.{side}: no name in {folder.absolute()} ends in {suffix!r} (before the file format); "
                f"there are\n{list_files(p.name for p in stems.values())}"
            )
    wanted = f"an input name{suffixes['input']} needs " + " and ".join(
        f"a {_WORDS[side][:-1]} name{suffix}" for side, suffix in suffixes.items() if side != "input"
    )
    return _match({side: endings[suffix] for side, suffix in suffixes.items()}, wanted)


def _match(found: Mapping[Side, Mapping[str, Path]], rule: str) -> Matched:
    lone: dict[str, list[Path]] = {}
    for side in found:
        if side != "input":
            word = _WORDS[side][:-1]
            lone[f"inputs without a {word}"] = _missing(found["input"], found[side])
            lone[f"{word}s without an input"] = _missing(found[side], found["input"])
    if any(lone.values()):
        lines = [f"images that do not pair ({rule}); add what is missing or move these away"]
        lines += [f"{what}:\n{list_files(paths)}" for what, paths in lone.items() if paths]
        raise DataError("\n".join(lines))
    return {name: {side: files[name] for side, files in found.items()} for name in sorted(found["input"])}


def _missing(files: Mapping[str, Path], others: Mapping[str, Path]) -> list[Path]:
    return [path for name, path in files.items() if name not in others]
