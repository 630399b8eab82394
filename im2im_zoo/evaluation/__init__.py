"""How good a prediction is: metrics with written definitions, trivial baselines, and reports that show them.

Figures: `evaluate`, `mean_evaluation`; the metrics alone are in `regression`, `semantic` and `instance`.
"""

from im2im_zoo.evaluation.baselines import best_gaussian, identity, linear_fit, otsu_instances, otsu_mask
from im2im_zoo.evaluation.comparison import TASKS, Evaluation, Task, evaluate, mean_evaluation

__all__ = [
    "TASKS",
    "Evaluation",
    "Task",
    "best_gaussian",
    "evaluate",
    "identity",
    "linear_fit",
    "mean_evaluation",
    "otsu_instances",
    "otsu_mask",
]
