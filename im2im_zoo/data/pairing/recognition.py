"""Recognition of how the images of a folder belong together: which are inputs, which are targets, and what their names share.

Only names count, apart from two folders whose names tell nothing, of which a label image tells the targets.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.files import format_file_list
from im2im_zoo.data.pairing.patterns import NAME, is_pattern
from im2im_zoo.images.names import stem_of
from im2im_zoo.images.registry import is_image_file

Role = Literal["input", "target", "other"]

# Words in the names of files and folders, in lower case.
_TARGETS = frozenset(
    [
        "target",
        "targets",
        "mask",
        "masks",
        "label",
        "labels",
        "labelled",
        "labeled",
        "lbl",
        "lbls",
        "gt",
        "truth",
        "groundtruth",
        "seg",
        "segs",
        "segmentation",
        "segmentations",
        "annotation",
        "annotations",
        "annot",
        "instances",
        "instance",
        "clean",
        "high",
        "hr",
        "highsnr",
        "reference",
        "ref",
        "sharp",
        "stained",
        "clear",
    ]
)
_INPUTS = frozenset(
    [
        "image",
        "images",
        "im",
        "ims",
        "img",
        "imgs",
        "input",
        "inputs",
        "raw",
        "source",
        "src",
        "low",
        "lr",
        "lowsnr",
        "noisy",
        "blurred",
        "blurry",
        "original",
        "originals",
        "intensity",
        "intensities",
        "unstained",
        "brightfield",
        "bf",
        "phase",
    ]
)
# Results and pictures of other programs beside the images.
_OTHERS = frozenset(
    [
        "flows",
        "flow",
        "outline",
        "outlines",
        "overlay",
        "overlays",
        "preview",
        "previews",
        "thumbnail",
        "thumbnails",
        "thumb",
        "pred",
        "preds",
        "prediction",
        "predictions",
        "prob",
        "probs",
        "probability",
        "probabilities",
        "cellprob",
        "result",
        "results",
        "output",
        "outputs",
    ]
)
_TRAIN = ("train", "training", "tr")
_VALIDATION = ("val", "valid", "validation", "validate", "dev")
_TEST = ("test", "testing", "tests", "ts")
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_DEPTH = 4
# Patterns of each role that are compared; all files of a data set share a few.
_COMPARED = 40
_SHOWN_FOLDERS = ("images", "targets")


@dataclass(frozen=True, slots=True)
class Layout:
    """Files of a folder as pairs, or as images without targets.

    Attributes:
        fields: keys of a recipe's `data` section, `path` among them.
        described: the rule in words.
        unpaired: images without a partner.
        others: images that belong to neither side, such as results of other programs, or a test set.
    """

    fields: Mapping[str, Any]
    described: str
    unpaired: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def has_targets(self) -> bool:
        """Whether the images have targets."""
        return str(self.fields["pairing"]) != "self"


@dataclass(frozen=True, slots=True)
class TargetFiles:
    """Files that are the targets of others in the same folder, and a wildcard of their names."""

    files: tuple[Path, ...]
    wildcard: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """The parts of paths (relative, without the file format) that are the same: before and after the name."""

    before: str
    after: str

    @property
    def folder(self) -> str:
        return self.before.rpartition("/")[0]

    @property
    def affix(self) -> str:
        return f"{self.before.rpartition('/')[2]} {self.after}"

    @property
    def pattern(self) -> str:
        return f"{self.before}{NAME}{self.after}"

    @property
    def role(self) -> Role | None:
        for text in (self.affix, *reversed(self.folder.split("/"))):
            found = _role_of(text)
            if found is not None:
                return found
        return None


@dataclass(slots=True)
class _Frames:
    """Frames of the files of a folder, each with the files by their names."""

    files: dict[str, Path]
    by_frame: dict[_Frame, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def of(cls, files: Iterable[Path], root: Path) -> "_Frames":
        listed = {(p.relative_to(root).parent / stem_of(p)).as_posix(): p for p in files}
        made = cls(listed)
        for path in listed:
            for frame, name in _frames_of(path):
                made.by_frame[frame].setdefault(name, path)
        return made

    def with_role(self, *roles: Role | None) -> list[_Frame]:
        """Return the most frequent frames of some roles, the most frequent first."""
        found = [frame for frame in self.by_frame if frame.role in roles]
        found.sort(key=lambda f: (-len(self.by_frame[f]), -len(f.affix), f.pattern))
        return found[:_COMPARED]

    def shared(self, one: _Frame, other: _Frame) -> list[str]:
        """Return the names that both frames have, of different files."""
        first, second = self.by_frame[one], self.by_frame[other]
        return [name for name in first if name in second and first[name] != second[name]]


def recognize(
    path: Path, inputs: str | None = None, targets: str | None = None, *, paired: bool = True
) -> Layout:
    """Recognise how the images of a folder, or the columns of a table, belong together.

    Args:
        path: a folder, or a CSV table.
        inputs, targets: patterns of the files (`{name}.png`, `{name}_masks.png`), or columns of the table, where they are
            known; a pattern of inputs alone is used with what is recognised of the targets.
        paired: whether targets are looked for; otherwise they are left out.

    Raises:
        DataError: there is no such folder or table, it has no images, or which images are the targets cannot be told.

    Examples:
        >>> recognize(Path("my_images")).fields["target"]  # doctest: +SKIP
        'masks/{name}_mask'
    """
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return _recognize_table(path, inputs, targets)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such recipe, folder or table; check the path")
    if inputs is not None and targets is None:
        raise DataError(
            f"the pattern of images ({inputs}) is used with one of targets only: give --targets '{NAME}_mask.tif' as well, or leave "
            "both out"
        )
    if targets is not None:
        if not is_pattern(targets) or not is_pattern(inputs):
            raise DataError(
                f"the patterns of images ({inputs}) and targets ({targets}) both need {NAME}, the part that the files of a pair "
                "share: --images '{name}.tif' --targets '{name}_mask.tif'"
            )
        fields = {"path": str(path), "pairing": "patterns", "input": inputs, "target": targets}
        return Layout(fields, f"{inputs} and {targets}")
    return _recognize_folder(path, paired)


def find_targets(files: Sequence[Path]) -> TargetFiles | None:
    """Find the files that are, by their names, the targets of other files of the same folder; None if there are none."""
    if len(files) < 2 or any(not isinstance(f, Path) for f in files):
        return None
    frames = _Frames.of(files, Path(os.path.commonpath([f.parent for f in files])))
    for frame in frames.with_role("target"):
        if _role_of(frame.affix) != "target":
            continue
        own = frames.by_frame[frame]
        for other in frames.with_role("input", None):
            shared = frames.shared(other, frame) if other.folder == frame.folder else []
            if 2 * len(shared) > len(own):
                name = frame.before.rpartition("/")[2]
                return TargetFiles(tuple(frames.files[own[n]] for n in own), f"{name}*{frame.after}.*")
    return None


def _recognize_folder(path: Path, paired: bool) -> Layout:
    files = sorted(_walk(path))
    if not files:
        table = _find_table(path)
        if table is not None:
            return _recognize_table(table, None, None)
        raise DataError(f"{path.absolute()}: there are no images in this folder, or in folders within it")
    parts = _find_parts(path, files)
    if parts.train is not None and (parts.validation is not None or parts.test is not None):
        return _recognize_parts(path, parts, paired)
    return _recognize_files(path, files, paired)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Folders of the images to train, to validate and to test on, which contain images."""

    train: str | None
    validation: str | None
    test: str | None


def _find_parts(path: Path, files: Sequence[Path]) -> _Parts:
    tops = {file.relative_to(path).parts[0] for file in files if file.parent != path}

    def find(names: Sequence[str]) -> str | None:
        return next((top for name in names for top in sorted(tops) if top.lower() == name), None)

    return _Parts(find(_TRAIN), find(_VALIDATION), find(_TEST))


def _recognize_parts(path: Path, parts: _Parts, paired: bool) -> Layout:
    """Recognise the training part, whose rule holds for the others; a test part without validation is left for testing."""
    train = path / str(parts.train)
    layout = _recognize_files(train, sorted(_walk(train)), paired)
    tests = () if parts.test is None else tuple(sorted(_walk(path / parts.test)))
    if parts.validation is None:
        word = f"{parts.train}/ only, {parts.test}/ is left for testing: {layout.described}"
        return Layout(layout.fields, word, layout.unpaired, (*layout.others, *tests))
    names = (str(parts.train), parts.validation)
    split: dict[str, Any] = {"split": "folders"}
    if names != ("train", "val"):
        split["split_folders"] = list(names)
    word = f"in {names[0]}/ and {names[1]}/: {layout.described}"
    return Layout(
        {**layout.fields, "path": str(path), **split}, word, layout.unpaired, (*layout.others, *tests)
    )


def _recognize_files(path: Path, files: Sequence[Path], paired: bool) -> Layout:
    frames = _Frames.of(files, path)
    found = _best_frames(frames)
    if found is None:
        return _without_targets(path, frames, paired)
    image, target = found
    if not paired:
        return _without_targets(path, frames, paired, image, target)
    return _paired_layout(path, frames, image, target)


def _best_frames(frames: _Frames) -> tuple[_Frame, _Frame] | None:
    """Return the frames of inputs and targets that make most pairs; None if there are no pairs."""
    best: tuple[tuple[int, ...], _Frame, _Frame] | None = None
    targets = frames.with_role("target")
    inputs = frames.with_role("input", None)
    for target in targets:
        for image in (*inputs, *_frames_with_rest(frames, target)):
            count = len(frames.shared(image, target))
            missing = len(frames.by_frame[target]) - count
            rank = (count, -missing, int(image.role == "input"), len(target.affix), -len(image.pattern))
            if count and (best is None or rank > best[0]):
                best = rank, image, target
    if best is not None:
        return best[1], best[2]
    return _named_input(frames) or _two_folders(frames)


def _frames_with_rest(frames: _Frames, target: _Frame) -> list[_Frame]:
    """Return frames of files whose names begin with the names of targets and have the same rest, as `a_ch00` of `a`."""
    names = frames.by_frame[target]
    rests: Counter[_Frame] = Counter()
    for path in frames.files:
        folder, _, stem = path.rpartition("/")
        if _role_of(stem) in ("target", "other"):
            continue
        for match in _TOKEN.finditer(stem):
            name, rest = stem[: match.end()], stem[match.end() :]
            if rest and name in names:
                rests[_Frame(f"{folder}/" if folder else "", rest)] += 1
    chosen = [frame for frame, count in rests.most_common(_COMPARED) if 2 * count > len(names)]
    for frame in chosen:
        for path in frames.files:
            if path.startswith(frame.before) and path.endswith(frame.after):
                name = path[len(frame.before) : len(path) - len(frame.after)]
                if name and "/" not in name:
                    frames.by_frame[frame].setdefault(name, path)
    return chosen


def _named_input(frames: _Frames) -> tuple[_Frame, _Frame] | None:
    """Return a frame whose words name inputs, and that of the other files of the same names in another folder."""
    for image in frames.with_role("input"):
        for target in frames.with_role(None):
            count = len(frames.shared(image, target))
            if image.folder != target.folder and count and 2 * count > len(frames.by_frame[target]):
                return image, target
    return None


def _two_folders(frames: _Frames) -> tuple[_Frame, _Frame] | None:
    """Return the frames of two folders with the same names, of which one has label images.

    Raises:
        DataError: none, or both, have label images.
    """
    bare = [f for f in frames.with_role(None) if not f.affix.strip() and f.folder]
    for one in bare:
        for other in bare:
            count = len(frames.shared(one, other))
            if one.folder >= other.folder or 2 * count <= max(len(frames.by_frame[f]) for f in (one, other)):
                continue
            name = frames.shared(one, other)[0]
            labels = [f for f in (one, other) if looks_like_labels(frames.files[frames.by_frame[f][name]])]
            if len(labels) == 1:
                return (other if labels[0] == one else one), labels[0]
            raise DataError(
                f"the folders {one.folder} and {other.folder} have images of the same names, but which are the targets cannot be "
                f"told: give --images '{one.pattern}' --targets '{other.pattern}', or the reverse"
            )
    return None


def looks_like_labels(path: Path) -> bool:
    """Return whether an image has whole numbers, and few neighbouring pixels differ, as in masks and label images.

    Raises:
        ImageError, AxesError: it cannot be opened.
    """
    from im2im_zoo.images import open_image

    image = open_image(path)
    return image.dtype.kind in "bu" and has_few_steps(image)


def has_few_steps(image: Any) -> bool:
    """Return whether few neighbouring pixels differ in the middle plane, as in masks and label images."""
    middle = {axis: size // 2 for axis, size in image.sizes.items() if axis not in ("y", "x")}
    plane = image.isel(middle).to_numpy()
    return bool((plane[1:] != plane[:-1]).mean() < 0.2)


def _paired_layout(path: Path, frames: _Frames, image: _Frame, target: _Frame) -> Layout:
    """Make the layout of two frames; a file that matches both is a target."""
    shared = set(frames.shared(image, target))
    targets = frames.by_frame[target]
    claimed = set(targets.values())
    inputs = {name: file for name, file in frames.by_frame[image].items() if file not in claimed}
    other = {file for file in frames.files if file not in claimed and file not in inputs.values()}
    # Results of other programs match a pattern of any name, too.
    unpaired: list[Path] = []
    results: list[Path] = []
    for name, file in (*inputs.items(), *targets.items()):
        if name not in shared:
            is_result = _role_of(file.rpartition("/")[2]) == "other" and file not in claimed
            (results if is_result else unpaired).append(frames.files[file])
    fields: dict[str, Any] = {"path": str(path), **_keys_of(image, target)}
    if unpaired or results:
        fields["skip_unpaired"] = True
    described = f"{image.pattern} and {target.pattern}"
    others = (*results, *(frames.files[file] for file in sorted(other)))
    return Layout(fields, described, tuple(sorted(unpaired)), tuple(others))


def _keys_of(image: _Frame, target: _Frame) -> dict[str, Any]:
    """Return pairing, input and target: folders or suffixes where these are enough, else patterns."""
    frames = (image, target)
    folders = tuple(f.folder for f in frames)
    if all(not f.affix.strip() and f.folder and f.before == f"{f.folder}/" for f in frames):
        given = {"input": folders[0], "target": folders[1]}
        return {"pairing": "folders", **({} if folders == _SHOWN_FOLDERS else given)}
    if folders == ("", "") and all(not f.before and "/" not in f.after for f in frames):
        suffixes = {"input": image.after, "target": target.after}
        default = (image.after, target.after) == ("_IM", "_GT")
        return {"pairing": "suffixes", **({} if default else suffixes)}
    return {"pairing": "patterns", "input": image.pattern, "target": target.pattern}


def _without_targets(
    path: Path,
    frames: _Frames,
    paired: bool,
    image: _Frame | None = None,
    target: _Frame | None = None,
) -> Layout:
    """Make the layout of images that are their own targets: those of one folder, without the targets among them.

    Raises:
        DataError: the images are in several folders.
    """
    excluded = set() if target is None else set(frames.by_frame[target].values())
    kept = [
        file
        for file in frames.files
        if file not in excluded and _role_of(file.rpartition("/")[2]) != "other" and not _in_targets(file)
    ]
    if image is not None:
        inside = [file for file in kept if file.rpartition("/")[0] == image.folder]
        kept = inside or kept
    folders = Counter(file.rpartition("/")[0] for file in kept)
    if not folders:
        raise DataError(
            f"{path.absolute()}: by their names, all images are targets or results; give --images '{NAME}.tif'"
        )
    named = [name for name in folders if _role_of(name) == "input"]
    if len(folders) > 1 and len(named) != 1:
        listed = [f"{name or '.'}: {count} images" for name, count in sorted(folders.items())]
        raise DataError(
            f"{path.absolute()}: the images are in several folders, and by their names they do not pair; give the folder "
            f"of the images, or --images and --targets with patterns such as 'images/{NAME}':\n{format_file_list(listed)}"
        )
    folder = named[0] if len(folders) > 1 else next(iter(folders))
    chosen = {file for file in kept if file.rpartition("/")[0] == folder}
    left = [file for file in frames.files if file not in chosen]
    fields: dict[str, Any] = {"path": str(path), "pairing": "self"}
    if folder != "images":
        fields["input"] = folder or "."
    # Only files of the same folder are mistaken for images.
    ignored = sorted({_wildcard(file, target) for file in left if file.rpartition("/")[0] == folder})
    if ignored:
        fields["ignore"] = ignored
    return Layout(
        fields,
        f"images of {folder or 'this folder'}" + ("" if paired else ", without targets"),
        (),
        tuple(frames.files[file] for file in sorted(left)),
    )


def _wildcard(file: str, target: _Frame | None) -> str:
    """Return a wildcard of files of a kind: by the frame of targets, or the name of the file."""
    stem = file.rpartition("/")[2]
    if target is not None:
        start = target.before.rpartition("/")[2]
        if stem.startswith(start) and stem.endswith(target.after):
            return f"{start}*{target.after}.*"
    return f"{stem}.*"


def _in_targets(file: str) -> bool:
    return any(_role_of(part) in ("target", "other") for part in file.split("/")[:-1])


def _recognize_table(path: Path, inputs: str | None, targets: str | None) -> Layout:
    """Recognise the columns of a table by their names.

    Raises:
        DataError: there is no such column.
    """
    from im2im_zoo.data.pairing.table import read_table

    columns = read_table(path).columns
    image = inputs or _find_column(columns, "input")
    target = targets or _find_column(columns, "target")
    missing = "--images" if image is None else "--targets" if target is None else ""
    if missing or image not in columns or target not in columns:
        raise DataError(
            f"{path}: which of the columns {', '.join(columns)} are the images and the targets cannot be told; give "
            "--images COLUMN --targets COLUMN"
        )
    fields: dict[str, Any] = {"path": str(path), "pairing": "csv"}
    fields |= {} if image == "input" else {"input": image}
    fields |= {} if target == "target" else {"target": target}
    if "split" in columns:
        fields["split"] = "column"
    return Layout(fields, f"columns {image} and {target}")


def _find_column(columns: Sequence[str], role: Role) -> str | None:
    exact = [column for column in columns if column.lower() == role]
    named = [column for column in columns if _role_of(column) == role]
    return next(iter((*exact, *named)), None)


def _find_table(path: Path) -> Path | None:
    tables = [p for p in path.iterdir() if p.suffix.lower() in (".csv", ".tsv")]
    return tables[0] if len(tables) == 1 else None


def _walk(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield the images in a folder and the folders within it."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if is_image_file(path):
            yield path
        elif depth > 1 and path.is_dir():
            yield from _walk(path, depth - 1)


def _frames_of(path: str) -> Iterator[tuple[_Frame, str]]:
    """Yield the frames of a path, each with the name: words (of which one is known) before and behind it, or the folder above."""
    folder, _, stem = path.rpartition("/")
    inside = f"{folder}/" if folder else ""
    tokens = list(_TOKEN.finditer(stem))
    words = [_role_of_word(token[0]) is not None for token in tokens]
    plain = [not token[0].isdigit() for token in tokens]
    starts, ends = [0], [len(stem)]
    for k in range(1, len(tokens)):
        if any(words[:k]) and all(plain[:k]):
            starts.append(tokens[k].start())
        if any(words[k:]) and all(plain[k:]):
            ends.append(tokens[k - 1].end())
    for start in starts:
        for end in ends:
            if start < end:
                yield _Frame(inside + stem[:start], stem[end:]), stem[start:end]
    if folder and words and all(words):
        above, _, name = folder.rpartition("/")
        yield _Frame(f"{above}/" if above else "", f"/{stem}"), name


def _role_of(text: str) -> Role | None:
    """Return the role that the words of a text name; of several, other results come first, then targets."""
    found = {_role_of_word(token[0]) for token in _TOKEN.finditer(text)}
    order: tuple[Role, ...] = ("other", "target", "input")
    return next((role for role in order if role in found), None)


def _role_of_word(word: str) -> Role | None:
    lower = word.lower()
    if lower in _OTHERS:
        return "other"
    if lower in _TARGETS:
        return "target"
    return "input" if lower in _INPUTS else None
