"""Evaluation of predictions: metrics with written definitions, trivial baselines, and reports.

Entry points: `evaluate` and `mean_evaluation`; single metrics are in `regression`, `semantic` and `instance`.
"""

from im2im_zoo.evaluation.baselines import (
    best_gaussian,
    identity,
    linear_fit,
    otsu_instances,
    otsu_mask,
    watershed_instances,
)
from im2im_zoo.evaluation.comparison import TASKS, Evaluation, Task, evaluate, mean_evaluation
from im2im_zoo.evaluation.curves import Curve, curve_from_rows
from im2im_zoo.evaluation.instance_report import instance_report, worst_windows
from im2im_zoo.evaluation.panels import Panel, regression_panels, segmentation_panels
from im2im_zoo.evaluation.plots import panel_figure, panels_png
from im2im_zoo.evaluation.report import Headline, Report, Sample, headlines, write_report

__all__ = [
    "TASKS",
    "Curve",
    "Evaluation",
    "Headline",
    "Panel",
    "Report",
    "Sample",
    "Task",
    "best_gaussian",
    "curve_from_rows",
    "evaluate",
    "headlines",
    "identity",
    "instance_report",
    "linear_fit",
    "mean_evaluation",
    "otsu_instances",
    "otsu_mask",
    "panel_figure",
    "panels_png",
    "regression_panels",
    "segmentation_panels",
    "watershed_instances",
    "worst_windows",
    "write_report",
]
