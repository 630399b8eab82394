"""The runtime: run a package on an image of any size, within a memory budget. Plan first, then run.

`plan_prediction` says what will be done, `predict` does it, `predict_array` does it in memory.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.runtime.cost import measure_cost
    from im2im_zoo.runtime.memory import Cost, Projection, project
    from im2im_zoo.runtime.plan import AxisPlan, Plan, Tile
    from im2im_zoo.runtime.planning import plan_prediction
    from im2im_zoo.runtime.prediction import (
        PredictionResult,
        execute,
        open_network,
        predict,
        predict_array,
    )
    from im2im_zoo.runtime.run import Figures, Sink, run_plan

_HOMES = {
    "measure_cost": "cost",
    "Cost": "memory",
    "Projection": "memory",
    "project": "memory",
    "AxisPlan": "plan",
    "Plan": "plan",
    "Tile": "plan",
    "plan_prediction": "planning",
    "PredictionResult": "prediction",
    "execute": "prediction",
    "open_network": "prediction",
    "predict": "prediction",
    "predict_array": "prediction",
    "Figures": "run",
    "Sink": "run",
    "run_plan": "run",
}

__all__ = [
    "AxisPlan",
    "Cost",
    "Figures",
    "Plan",
    "PredictionResult",
    "Projection",
    "Sink",
    "Tile",
    "execute",
    "measure_cost",
    "open_network",
    "plan_prediction",
    "predict",
    "predict_array",
    "project",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    # xarray and bioimageio.spec are loaded with the first use, not with the name of the package.
    if name in _HOMES:
        return getattr(importlib.import_module(f"im2im_zoo.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'im2im_zoo.runtime' has no attribute {name!r}")
