"""Matching of images by name: in subfolders, by suffixes in one folder, or by patterns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.files import format_file_list, index_by_stem, list_images
from im2im_zoo.data.pairing.patterns import NamePattern, is_ignored

Side = Literal["input", "target", "cost"]
Matched = dict[str, dict[Side, Path]]
"""The files of each name."""
Sides = Mapping[Side, Mapping[str, Path]]
"""The files of each side by their names."""

_WORDS: dict[Side, str] = {"input": "inputs", "target": "targets", "cost": "cost maps"}


def list_subfolder(folder: Path, side: Side, name: str) -> dict[str, Path]:
    """List the images of one subfolder by their stems.

    Raises:
        DataError: no such folder, no image in it, or two formats of one stem.
    """
    return index_by_stem(list_images(folder / name, f"{_WORDS[side]} (data.{side})"))


@dataclass(frozen=True, slots=True)
class FileChoice:
    """Rules on files besides their names.

    Attributes:
        ignored: wildcards of files that are not used.
        skip_unpaired: whether images without partners are left out instead of refused.
    """

    ignored: Sequence[str] = ()
    skip_unpaired: bool = False


_ALL_FILES = FileChoice()


def match_folders(folder: Path, names: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Matched:
    """Match the images of subfolders with the same stem.

    Args:
        folder: of the subfolders.
        names: of the subfolders; that of the cost maps only if there are any.
        choice: files that are not used.

    Returns:
        The files of each stem.

    Raises:
        DataError: as `list_subfolder`; or images without partners, which the message lists.
    """
    return _match(
        sides_in_folders(folder, names, choice), "names without the suffix have to be equal", choice
    )


def sides_in_folders(folder: Path, names: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Sides:
    """List the images of each side by their stems, in subfolders."""
    return {side: _keep(list_subfolder(folder, side, name), folder, choice) for side, name in names.items()}


def match_suffixes(folder: Path, suffixes: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Matched:
    """Match the images of one folder that differ only in the suffix of their stem.

    Args:
        folder: of the images.
        suffixes: of each kind of image.
        choice: files that are not used.

    Returns:
        The files of each stem without its suffix.

    Raises:
        DataError: no image, two formats of one stem, equal suffixes, a suffix that no image has, or images without
            partners.
    """
    wanted = f"an input name{suffixes['input']} needs " + " and ".join(
        f"a {_WORDS[side][:-1]} name{suffix}" for side, suffix in suffixes.items() if side != "input"
    )
    return _match(sides_by_suffix(folder, suffixes, choice), wanted, choice)


def sides_by_suffix(folder: Path, suffixes: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Sides:
    """List the images of each side by their stems without the suffix, in one folder."""
    for (one, suffix), (other, same) in combinations(suffixes.items(), 2):
        if suffix == same:
            raise DataError(f"data.{one} and data.{other} are both {suffix!r}; give different suffixes")
    stems = _keep(index_by_stem(list_images(folder, "data.path")), folder, choice)
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
    return {side: endings[suffix] for side, suffix in suffixes.items()}


def match_patterns(folder: Path, patterns: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Matched:
    """Match the images whose paths match patterns with the same `{name}`.

    Args:
        folder: that the patterns are relative to.
        patterns: of each kind of image. A file that matches several belongs to the one with the most other characters.
        choice: files that are not used.

    Returns:
        The files of each name.

    Raises:
        DataError: an invalid pattern, equal patterns, a pattern without images, two files of one name, or images
            without partners.
    """
    wanted = " and ".join(f"a {_WORDS[side][:-1]} {pattern}" for side, pattern in patterns.items())
    return _match(sides_by_pattern(folder, patterns, choice), f"each name needs {wanted}", choice)


def sides_by_pattern(folder: Path, patterns: Mapping[Side, str], choice: FileChoice = _ALL_FILES) -> Sides:
    """List the images of each side by the name in their patterns."""
    parsed = {side: NamePattern.parse(text, f"data.{side}") for side, text in patterns.items()}
    for (one, pattern), (other, same) in combinations(parsed.items(), 2):
        if pattern == same:
            raise DataError(f"data.{one} and data.{other} are both {str(pattern)!r}; give different patterns")
    found: dict[Side, dict[str, Path]] = {side: {} for side in parsed}
    taken: set[Path] = set()
    doubled = []
    for side, pattern in sorted(parsed.items(), key=lambda item: -item[1].literal):
        for name, path in pattern.find_files(folder):
            if path in taken or is_ignored(path, folder, choice.ignored):
                continue
            taken.add(path)
            if name in found[side]:
                doubled.append(f"{found[side][name]} and {path.name}")
            found[side].setdefault(name, path)
    if doubled:
        raise DataError(
            "several files have the same name, so it is not clear which one to use; keep one of each, or give the pattern a file "
            f"format:\n{format_file_list(doubled)}"
        )
    for side, pattern in parsed.items():
        if not found[side]:
            raise DataError(
                f"data.{side}: no image in {folder.absolute()} matches {str(pattern)!r}; {{name}} is the part that the files "
                "of a pair share"
            )
    return {side: found[side] for side in parsed}


def _keep(files: Mapping[str, Path], folder: Path, choice: FileChoice) -> dict[str, Path]:
    return {stem: path for stem, path in files.items() if not is_ignored(path, folder, choice.ignored)}


def list_unpaired(sides: Sides) -> list[Path]:
    """List the images without partners."""
    return [path for paths in _find_lone(sides).values() for path in paths]


def _match(found: Sides, rule: str, choice: FileChoice) -> Matched:
    lone = {} if choice.skip_unpaired else _find_lone(found)
    if any(lone.values()):
        lines = [
            f"images that do not pair ({rule}); add what is missing, move these away, or set data.skip_unpaired: true"
        ]
        lines += [f"{what}:\n{format_file_list(paths)}" for what, paths in lone.items() if paths]
        raise DataError("\n".join(lines))
    names = sorted(set(found["input"]).intersection(*found.values()))
    if not names:
        raise DataError(
            f"no two images have the same name ({rule}):\n{format_file_list(list_unpaired(found))}"
        )
    return {name: {side: files[name] for side, files in found.items()} for name in names}


def _find_lone(found: Sides) -> dict[str, list[Path]]:
    """Return the images without a partner of each kind."""
    lone: dict[str, list[Path]] = {}
    for side in found:
        if side != "input":
            word = _WORDS[side][:-1]
            lone[f"inputs without a {word}"] = _find_unmatched(found["input"], found[side])
            lone[f"{word}s without an input"] = _find_unmatched(found[side], found["input"])
    return lone


def _find_unmatched(files: Mapping[str, Path], others: Mapping[str, Path]) -> list[Path]:
    return [path for name, path in files.items() if name not in others]
