"""im2im_zoo: train, package, validate and run microscopy image-to-image models.

    import im2im_zoo as zoo

    model = zoo.open_model("nuclei_2d")
    model.predict("plate.ome.zarr", "result.ome.zarr", resources=zoo.Resources(memory="4GB"))

Each public name is imported when it is first used, so `import im2im_zoo` costs nothing.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.evaluation import evaluate
    from im2im_zoo.frameworks.base import Framework
    from im2im_zoo.images import create_image, memory_image, open_image, write_image
    from im2im_zoo.package import open_package
    from im2im_zoo.packaging import export_package
    from im2im_zoo.packaging import validate_package as validate
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.recipe.load import load_recipe
    from im2im_zoo.runtime.execute.prediction_result import PredictionResult
    from im2im_zoo.runtime.plan.plan import Plan
    from im2im_zoo.runtime.predictor import Model
    from im2im_zoo.runtime.settings import Format, Resources, Settings
    from im2im_zoo.training.run import load_framework, open_run
    from im2im_zoo.workflows.export_run import export_run
    from im2im_zoo.workflows.models import open_model
    from im2im_zoo.workflows.training import train

# Public name -> module and name there.
_HOMES = {
    "Format": ("runtime.settings", "Format"),
    "Framework": ("frameworks.base", "Framework"),
    "Model": ("runtime.predictor", "Model"),
    "Plan": ("runtime.plan.plan", "Plan"),
    "PredictionResult": ("runtime.execute.prediction_result", "PredictionResult"),
    "Recipe": ("recipe", "Recipe"),
    "Resources": ("runtime.settings", "Resources"),
    "Settings": ("runtime.settings", "Settings"),
    "create_image": ("images", "create_image"),
    "evaluate": ("evaluation", "evaluate"),
    "export_package": ("packaging", "export_package"),
    "export_run": ("workflows.export_run", "export_run"),
    "load_framework": ("training.run", "load_framework"),
    "load_recipe": ("recipe.load", "load_recipe"),
    "memory_image": ("images", "memory_image"),
    "open_image": ("images", "open_image"),
    "open_model": ("workflows.models", "open_model"),
    "open_package": ("package", "open_package"),
    "open_run": ("training.run", "open_run"),
    "train": ("workflows.training", "train"),
    "validate": ("packaging", "validate_package"),
    "write_image": ("images", "write_image"),
}

# Names of version 0.1.0 that still work, with a warning: module, name there, and what replaces it.
_DEPRECATED = {
    "plan_prediction": ("runtime", "plan_prediction", "open_model(package).plan(image)"),
    "predict": ("runtime", "predict", "open_model(package).predict(image, output)"),
    "predict_array": ("runtime", "predict_array", "open_model(package).predict_array(image)"),
    "validate_package": ("packaging", "validate_package", "validate(package)"),
}

__all__ = [
    "Format",
    "Framework",
    "Model",
    "Plan",
    "PredictionResult",
    "Recipe",
    "Resources",
    "Settings",
    "create_image",
    "evaluate",
    "export_package",
    "export_run",
    "load_framework",
    "load_recipe",
    "memory_image",
    "open_image",
    "open_model",
    "open_package",
    "open_run",
    "train",
    "validate",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(f"im2im_zoo.{module}"), attribute)
    if name in _DEPRECATED:
        module, attribute, instead = _DEPRECATED[name]
        warnings.warn(
            f"im2im_zoo.{name} is deprecated; use im2im_zoo.{instead}", DeprecationWarning, stacklevel=2
        )
        return getattr(importlib.import_module(f"im2im_zoo.{module}"), attribute)
    raise AttributeError(f"module 'im2im_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
