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
    from im2im_zoo.evaluation import evaluate as evaluate
    from im2im_zoo.frameworks.base import Framework as Framework
    from im2im_zoo.images import create_image as create_image
    from im2im_zoo.images import memory_image as memory_image
    from im2im_zoo.images import open_image as open_image
    from im2im_zoo.images import write_image as write_image
    from im2im_zoo.package import open_package as open_package
    from im2im_zoo.packaging import export_package as export_package
    from im2im_zoo.packaging import validate_package as validate  # noqa: F401 its name here
    from im2im_zoo.recipe import Recipe as Recipe
    from im2im_zoo.recipe.load import load_recipe as load_recipe
    from im2im_zoo.runtime.execute.prediction_result import PredictionResult as PredictionResult
    from im2im_zoo.runtime.plan.plan import Plan as Plan
    from im2im_zoo.runtime.predictor import Model as Model
    from im2im_zoo.runtime.settings import Format as Format
    from im2im_zoo.runtime.settings import Resources as Resources
    from im2im_zoo.runtime.settings import Settings as Settings
    from im2im_zoo.training.run import load_framework as load_framework
    from im2im_zoo.training.run import open_run as open_run
    from im2im_zoo.workflows.export_run import export_run as export_run
    from im2im_zoo.workflows.models import open_model as open_model
    from im2im_zoo.workflows.training import train as train
    from im2im_zoo.workflows.view.write import write_view as write_view

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
    "write_view": ("workflows.view.write", "write_view"),
}

# Names of version 0.1.0 that still work, with a warning: module, name there, and what replaces it.
_DEPRECATED = {
    "plan_prediction": ("runtime", "plan_prediction", "open_model(package).plan(image)"),
    "predict": ("runtime", "predict", "open_model(package).predict(image, output)"),
    "predict_array": ("runtime", "predict_array", "open_model(package).predict_array(image)"),
    "validate_package": ("packaging", "validate_package", "validate(package)"),
}

__all__ = sorted(_HOMES)


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
