"""im2im_zoo: train, package, validate and run microscopy image-to-image models.

The public names; each is imported when it is first used, so that `import im2im_zoo` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.evaluation import evaluate
    from im2im_zoo.frameworks.base import Framework
    from im2im_zoo.images import create_image, open_image, write_image
    from im2im_zoo.package import open_package
    from im2im_zoo.packaging import export_package, validate_package
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.recipe.load import load_recipe
    from im2im_zoo.runtime import plan_prediction, predict, predict_array
    from im2im_zoo.training.run import load_framework, open_run
    from im2im_zoo.training.train import train
    from im2im_zoo.workflows.export_run import export_run

_HOMES = {
    "Framework": "frameworks.base",
    "Recipe": "recipe",
    "create_image": "images",
    "evaluate": "evaluation",
    "export_package": "packaging",
    "export_run": "workflows.export_run",
    "load_framework": "training.run",
    "load_recipe": "recipe.load",
    "open_image": "images",
    "open_package": "package",
    "open_run": "training.run",
    "plan_prediction": "runtime",
    "predict": "runtime",
    "predict_array": "runtime",
    "train": "training.train",
    "validate_package": "packaging",
    "write_image": "images",
}

__all__ = [
    "Framework",
    "Recipe",
    "create_image",
    "evaluate",
    "export_package",
    "export_run",
    "load_framework",
    "load_recipe",
    "open_image",
    "open_package",
    "open_run",
    "plan_prediction",
    "predict",
    "predict_array",
    "train",
    "validate_package",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"im2im_zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'im2im_zoo' has no attribute {name!r}")
