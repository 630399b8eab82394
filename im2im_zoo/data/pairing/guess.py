"""A recipe guessed from the images in a folder or a table, to check data without a recipe."""

from pathlib import Path
from typing import Any

from im2im_zoo.core.axes import AxisName
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.recognition import Layout, has_few_steps, recognize
from im2im_zoo.images import open_image
from im2im_zoo.recipe import Data, Recipe
from im2im_zoo.recipe.load import make_recipe


def guess_recipe(path: Path, layout: Layout | None = None) -> Recipe:
    """Guess a recipe's data section, axes and task; its network is a placeholder.

    Targets of floats, or with many different neighbouring values, count as intensities (task regression), others as masks or
    labels.

    Args:
        path: a folder of images, with targets or without, or a CSV table; see `recognition.recognize`.
        layout: how the images belong together, if that is known.

    Raises:
        DataError: there are no images, or how they belong together cannot be told.
        ImageError, AxesError: the first image cannot be opened.
    """
    fields = dict((layout or recognize(path)).fields)
    pairs = find_pairs(Data(**fields), 0)
    first = pairs.train[0]
    image = open_image(first.input)
    space: list[AxisName] = ["z", "y", "x"] if image.sizes.get("z", 1) > 1 else ["y", "x"]
    target = open_image(first.target, labels=first.target != first.input)
    labelled = target.dtype.kind in "bu" and fields["pairing"] != "self"
    content: dict[str, Any] = {
        "name": "Images as they are found",
        "framework": {"callable": "im2im_zoo.frameworks.fcn.FCN"},
        "network": {"callable": "torch.nn.Identity"},
        "data": fields,
        "input": {"axes": ["batch", "channel", *space]},
        "output": {"task": "semantic" if labelled and has_few_steps(target) else "regression"},
    }
    return make_recipe(content, str(path))
