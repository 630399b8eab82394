"""Run a package on an image of any size within a memory budget: plan first, then run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.runtime.by_name import predict as predict
    from im2im_zoo.runtime.by_name import predict_array as predict_array
    from im2im_zoo.runtime.by_name import predict_arrays as predict_arrays
    from im2im_zoo.runtime.execute.prediction_result import PredictionResult as PredictionResult
    from im2im_zoo.runtime.measure.select_engine import open_network as open_network
    from im2im_zoo.runtime.plan.plan import Plan as Plan
    from im2im_zoo.runtime.plan.planning import plan_prediction as plan_prediction
    from im2im_zoo.runtime.predictor import Model as Model
    from im2im_zoo.runtime.predictor import open_package_model as open_package_model
    from im2im_zoo.runtime.settings import Resources as Resources
    from im2im_zoo.runtime.settings import Settings as Settings

_HOMES = {
    "Model": "predictor",
    "Plan": "plan.plan",
    "PredictionResult": "execute.prediction_result",
    "Resources": "settings",
    "Settings": "settings",
    "open_network": "measure.select_engine",
    "open_package_model": "predictor",
    "plan_prediction": "plan.planning",
    "predict": "by_name",
    "predict_array": "by_name",
    "predict_arrays": "by_name",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # xarray and bioimageio.spec are imported on first use, so that importing the package stays fast.
    if name in _HOMES:
        return getattr(importlib.import_module(f"im2im_zoo.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'im2im_zoo.runtime' has no attribute {name!r}")
