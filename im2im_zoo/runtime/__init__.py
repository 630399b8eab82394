"""The runtime: run a package on an image of any size, within a memory budget. Plan first, then run.

`plan_prediction` says what will be done, `predict` does it, `predict_array` does it in memory.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_zoo.runtime.choice import open_network
    from im2im_zoo.runtime.cost import measure_cost
    from im2im_zoo.runtime.in_memory import predict_array, predict_arrays
    from im2im_zoo.runtime.mapping import map_axes
    from im2im_zoo.runtime.memory import Cost, Projection, project
    from im2im_zoo.runtime.plan import AxisPlan, Plan, Tile
    from im2im_zoo.runtime.planning import plan_prediction
    from im2im_zoo.runtime.prediction import PredictionResult, predict
    from im2im_zoo.runtime.prepare import Prepared, Settings, prepare
    from im2im_zoo.runtime.run import Figures, run_plan
    from im2im_zoo.runtime.tile_job import Sink

_HOMES = {
    "open_network": "choice",
    "measure_cost": "cost",
    "map_axes": "mapping",
    "Cost": "memory",
    "Projection": "memory",
    "project": "memory",
    "AxisPlan": "plan",
    "Plan": "plan",
    "Tile": "plan",
    "plan_prediction": "planning",
    "PredictionResult": "prediction",
    "predict": "prediction",
    "predict_array": "in_memory",
    "predict_arrays": "in_memory",
    "Prepared": "prepare",
    "Settings": "prepare",
    "prepare": "prepare",
    "Figures": "run",
    "run_plan": "run",
    "Sink": "tile_job",
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
    "Sink",
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
