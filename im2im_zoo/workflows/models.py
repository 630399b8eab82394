"""Open models: of packages, and of networks in memory with their recipe, as one kind of object."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.core.errors import PackageError
from im2im_zoo.package import Package
from im2im_zoo.recipe import Recipe
from im2im_zoo.runtime.predictor import Model, open_package_model

if TYPE_CHECKING:
    from torch import nn

    from im2im_zoo.packaging.export.sample import Sample


def open_model(
    source: "str | Path | Package | nn.Module",
    *,
    recipe: Recipe | None = None,
    samples: "Sequence[Sample] | None" = None,
    allow_code: bool = False,
) -> Model:
    """Open a model: its network is opened and measured once, and then predicts any number of images.

    Args:
        source: the name of a packaged model, a folder, zip, `rdf.yaml`, bioimage.io id or https address; an open package; or a
            network in memory, (batch, channel, (z,) y, x) to the same axes, with its `recipe`.
        recipe: of a network in memory: its input, output and their processing.
        samples: images that a network in memory is measured with (default: the validation images of the recipe).
        allow_code: whether Python of a package may run (`pytorch_state_dict`, `custom` operations, instance methods of
            others).

    Returns:
        The model, with `plan`, `predict`, `predict_array` and `predict_arrays`. A network in memory is written into a temporary
        package first, so that it predicts as its export does; `close` removes it.

    Raises:
        PackageError: no such package, or one that cannot be run; a network that cannot be packaged.

    Example:
        >>> import numpy as np, im2im_zoo as zoo
        >>> model = zoo.open_model("nuclei_2d")
        >>> model.predict_array(np.zeros((64, 96), "float32"), axes="yx").shape
        (64, 96)
    """
    if isinstance(source, str | Path | Package):
        if recipe is not None or samples is not None:
            raise PackageError("recipe and samples are for a network in memory; a package has its own")
        return open_package_model(source, allow_code=allow_code)
    if recipe is None:
        raise PackageError("a network in memory needs its recipe: open_model(network, recipe=...)")
    return _open_network(source, recipe, samples)


def _open_network(network: "nn.Module", recipe: Recipe, samples: "Sequence[Sample] | None") -> Model:
    from im2im_zoo.data import open_validation_pairs
    from im2im_zoo.packaging import export_package

    folder = Path(tempfile.mkdtemp(prefix="im2im-zoo-model-"))
    try:
        written = export_package(
            network,
            recipe,
            open_validation_pairs(recipe) if samples is None else samples,
            folder / "package",
            weights=("torchscript",),
        )
        model = open_package_model(written.folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return Model(replace(model.package, _remove=remove))
