"""Run a package on an image of any size within a memory budget: plan first, then run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.runtime.by_name import predict, predict_array, predict_arrays
    from im2im_zoo.runtime.execute.prediction_result import PredictionResult
    from im2im_zoo.runtime.execute.tile_stages import Counts, run_plan
    from im2im_zoo.runtime.layout.mapping import map_axes
    from im2im_zoo.runtime.measure.cost import measure_cost
    from im2im_zoo.runtime.measure.select_engine import open_network
    from im2im_zoo.runtime.plan.memory import Cost, Projection, project
    from im2im_zoo.runtime.plan.plan import AxisPlan, Plan, Tile
    from im2im_zoo.runtime.plan.planning import plan_prediction
    from im2im_zoo.runtime.predictor import Model, open_package_model
    from im2im_zoo.runtime.prepare import Networks, Prepared, prepare
    from im2im_zoo.runtime.settings import Format, Resources, Settings

_HOMES = {
    "AxisPlan": "plan.plan",
    "Cost": "plan.memory",
    "Counts": "execute.tile_stages",
    "Format": "settings",
    "Model": "predictor",
    "Networks": "prepare",
    "Plan": "plan.plan",
    "PredictionResult": "execute.prediction_result",
    "Prepared": "prepare",
    "Projection": "plan.memory",
    "Resources": "settings",
    "Settings": "settings",
    "Tile": "plan.plan",
    "map_axes": "layout.mapping",
    "measure_cost": "measure.cost",
    "open_network": "measure.select_engine",
    "open_package_model": "predictor",
    "plan_prediction": "plan.planning",
    "predict": "by_name",
    "predict_array": "by_name",
    "predict_arrays": "by_name",
    "prepare": "prepare",
    "project": "plan.memory",
    "run_plan": "execute.tile_stages",
}

__all__ = [
    "AxisPlan",
    "Cost",
    "Counts",
    "Format",
    "Model",
    "Networks",
    "Plan",
    "PredictionResult",
    "Prepared",
    "Projection",
    "Resources",
    "Settings",
    "Tile",
    "map_axes",
    "measure_cost",
    "open_network",
    "open_package_model",
    "plan_prediction",
    "predict",
    "predict_array",
    "predict_arrays",
    "prepare",
    "project",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    # xarray and bioimageio.spec are imported on first use, so that importing the package stays fast.
    if name in _HOMES:
        return getattr(importlib.import_module(f"im2im_zoo.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'im2im_zoo.runtime' has no attribute {name!r}")
