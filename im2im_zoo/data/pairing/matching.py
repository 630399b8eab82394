"""Matching of images by name: in subfolders, or by suffixes in one folder."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Literal

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.files import format_file_list, index_by_stem, list_images

Side = Literal["input", "target", "cost"]
Matched = dict[str, dict[Side, Path]]
"""The files of each name."""

_WORDS: dict[Side, str] = {"input": "inputs", "target": "targets", "cost": "cost maps"}


def list_subfolder(folder: Path, side: Side, name: str) -> dict[str, Path]:
    """List the images of one subfolder by their stems.

    Raises:
        DataError: no such folder, no image in it, or two formats of one stem.
    """
    return index_by_stem(list_images(folder / name, f"{_WORDS[side]} (data.{side})"))


def match_folders(folder: Path, names: Mapping[Side, str]) -> Matched:
    """Match the images of subfolders with the same stem.

    Args:
        folder: of the subfolders.
        names: of the subfolders; that of the cost maps only if there are any.

    Returns:
        The files of each stem.

    Raises:
        DataError: as `list_subfolder`; or images without partners, which the message lists.
    """
    found = {side: list_subfolder(folder, side, name) for side, name in names.items()}
    return _match(found, "names without the suffix have to be equal")


def match_suffixes(folder: Path, suffixes: Mapping[Side, str]) -> Matched:
    """Match the images of one folder that differ only in the suffix of their stem.

    Args:
        folder: of the images.
        suffixes: of each kind of image.

    Returns:
        The files of each stem without its suffix.

    Raises:
        DataError: no image, two formats of one stem, equal suffixes, a suffix that no image has, or images without
            partners.
    """
    for (one, suffix), (other, same) in combinations(suffixes.items(), 2):
        if suffix == same:
            raise DataError(f"data.{one} and data.{other} are both {suffix!r}; give different suffixes")
    stems = index_by_stem(list_images(folder, "data.path"))
    # Longer ones first, because a suffix may be empty or part of another (`` and `_mask`).
    ordered = sorted(suffixes.values(), key=len, reverse=True)
    endings: dict[str, dict[str, Path]] = {suffix: {} for suffix in ordered}
    for stem, path in stems.items():
        ending = next((s for s in ordered if stem.endswith(s) and stem != s), None)
        if ending is not None:
            endings[ending][stem.removesuffix(ending)] = path
    for side, suffix in suffixes.items():
        if not endings[suffix]:
            raise DataError(
                f"data.{side}: no name in {folder.absolute()} ends in {suffix!r} (before the file format); set data.{side} to "
                f"the suffix of these files:\n{format_file_list(p.name for p in stems.values())}"
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
            lone[f"inputs without a {word}"] = _find_unmatched(found["input"], found[side])
            lone[f"{word}s without an input"] = _find_unmatched(found[side], found["input"])
    if any(lone.values()):
        lines = [f"images that do not pair ({rule}); add what is missing or move these away"]
        lines += [f"{what}:\n{format_file_list(paths)}" for what, paths in lone.items() if paths]
        raise DataError("\n".join(lines))
    return {name: {side: files[name] for side, files in found.items()} for name in sorted(found["input"])}


def _find_unmatched(files: Mapping[str, Path], others: Mapping[str, Path]) -> list[Path]:
    return [path for name, path in files.items() if name not in others]
