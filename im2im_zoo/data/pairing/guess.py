"""A recipe guessed from the images in a folder or a table, to check data without a recipe."""

from pathlib import Path
from typing import Any

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.files import list_images
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.images import is_image_file, open_image
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Data, Recipe
from im2im_zoo.recipe.load import make_recipe

_SUFFIXES = ("_IM", "_GT")


def guess_recipe(path: Path) -> Recipe:
    """Guess a recipe's data section, axes and task; its network is a placeholder.

    Targets of floats, or with many different neighbouring values, count as intensities (task regression), others as masks or
    labels.

    Args:
        path: folder with `images` and `targets`, or with these in `train` and `val`; with files that end in `_IM` and `_GT`;
            with only images, in `images` or not; or a CSV table.

    Raises:
        DataError: it is none of these.
        ImageError, AxesError: the first image cannot be opened.
    """
    fields = _guess_data(path)
    data: dict[str, Any] = {"path": str(path), **fields}
    pairs = find_pairs(Data(**data), 0)
    first = pairs.train[0]
    image = open_image(first.input)
    space: list[AxisName] = ["z", "y", "x"] if image.sizes.get("z", 1) > 1 else ["y", "x"]
    target = open_image(first.target, labels=first.target != first.input)
    labelled = target.dtype.kind in "bu" and fields["pairing"] != "self"
    content = {
        "name": "Images as they are found",
        "framework": {"callable": "im2im_zoo.frameworks.fcn.FCN"},
        "network": {"callable": "torch.nn.Identity"},
        "data": data,
        "input": {"axes": ["batch", "channel", *space]},
        "output": {"task": "semantic" if labelled and _is_mask(target) else "regression"},
    }
    return make_recipe(content, str(path))


def _is_mask(target: Any) -> bool:
    """Whether few neighbouring voxels differ, as in masks and labels."""
    middle = {axis: size // 2 for axis, size in target.sizes.items() if axis not in ("y", "x")}
    plane = target.isel(middle).to_numpy()
    return bool((plane[1:] != plane[:-1]).mean() < 0.2)


def _guess_data(path: Path) -> dict[str, Any]:
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        first = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        return {"pairing": "csv", "split": "column" if "split" in first.lower() else "random"}
    if not path.is_dir():
        raise DataError(f"{path}: there is no such recipe, folder or table")
    parted = all((path / part).is_dir() for part in ("train", "val"))
    inner = path / "train" if parted else path
    split = {"split": "folders" if parted else "random"}
    if (inner / "images").is_dir():
        paired = (inner / "targets").is_dir()
        return {"pairing": "folders" if paired else "self", **split}
    stems = [stem_of(file) for file in inner.iterdir() if is_image_file(file)]
    if all(any(stem.endswith(suffix) for stem in stems) for suffix in _SUFFIXES):
        return {"pairing": "suffixes", **split}
    list_images(inner, "images")  # raises if there are none
    return {"pairing": "self", "input": ".", **split}
