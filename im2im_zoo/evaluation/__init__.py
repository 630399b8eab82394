"""Evaluation of predictions: metrics with written definitions, trivial baselines, and reports.

Entry points: `evaluate` and `mean_evaluation`; single metrics are in `regression`, `semantic` and `instance`.
"""

from im2im_zoo.evaluation.baselines import otsu_mask
from im2im_zoo.evaluation.comparison import TASKS, Evaluation, evaluate, mean_evaluation
from im2im_zoo.evaluation.curves import Curve, curve_from_rows
from im2im_zoo.evaluation.instance_report import instance_report, worst_windows
from im2im_zoo.evaluation.panels import Panel
from im2im_zoo.evaluation.report import Headline, Report, Sample, headlines, write_report

__all__ = [
    "TASKS",
    "Curve",
    "Evaluation",
    "Headline",
    "Panel",
    "Report",
    "Sample",
    "curve_from_rows",
    "evaluate",
    "headlines",
    "instance_report",
    "mean_evaluation",
    "otsu_mask",
    "worst_windows",
    "write_report",
]
