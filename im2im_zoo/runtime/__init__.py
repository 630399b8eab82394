"""The runtime: run a package on an image of any size, within a memory budget. Plan first, then run.

`plan_prediction` says what will be done, `predict` does it, `predict_array` does it in memory.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.runtime.execute.run import Figures, run_plan
    from im2im_zoo.runtime.in_memory import predict_array, predict_arrays
    from im2im_zoo.runtime.layout.mapping import map_axes
    from im2im_zoo.runtime.measure.cost import measure_cost
    from im2im_zoo.runtime.measure.select_engine import open_network
    from im2im_zoo.runtime.plan.memory import Cost, Projection, project
    from im2im_zoo.runtime.plan.plan import AxisPlan, Plan, Tile
    from im2im_zoo.runtime.plan.planning import plan_prediction
    from im2im_zoo.runtime.prediction import PredictionResult, predict
    from im2im_zoo.runtime.prepare import Prepared, prepare
    from im2im_zoo.runtime.settings import Settings

_HOMES = {
    "open_network": "measure.select_engine",
    "measure_cost": "measure.cost",
    "map_axes": "layout.mapping",
    "Cost": "plan.memory",
    "Projection": "plan.memory",
    "project": "plan.memory",
    "AxisPlan": "plan.plan",
    "Plan": "plan.plan",
    "Tile": "plan.plan",
    "plan_prediction": "plan.planning",
    "PredictionResult": "prediction",
    "predict": "prediction",
    "predict_array": "in_memory",
    "predict_arrays": "in_memory",
    "Prepared": "prepare",
    "Settings": "settings",
    "prepare": "prepare",
    "Figures": "execute.run",
    "run_plan": "execute.run",
}

__all__ = [
    "AxisPlan",
    "Cost",
    "Figures",
    "Plan",
    "PredictionResult",
    "Prepared",
    "Projection",
    "Settings",
    "Tile",
    "map_axes",
    "measure_cost",
    "open_network",
    "plan_prediction",
    "predict",
    "predict_array",
    "predict_arrays",
    "prepare",
    "project",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    # xarray and bioimageio.spec are loaded with the first use, not with the name of the package.
    if name in _HOMES:
        return getattr(importlib.import_module(f"im2im_zoo.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'im2im_zoo.runtime' has no attribute {name!r}")
