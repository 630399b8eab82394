"""Pre- and postprocessing: the one implementation of the bioimage.io spec's operations, for training and running.

`fit` takes every statistic that an operation needs over the whole lazy image, in bounded memory; the `Pipeline` that it
returns gives a tile the same bits as the whole image. Pure numpy and xarray.
"""

from im2im_zoo.processing.operations import whole_axes
from im2im_zoo.processing.pipeline import Pipeline, fit
from im2im_zoo.processing.requirements import Operation, needs_statistics

__all__ = ["Operation", "Pipeline", "fit", "needs_statistics", "whole_axes"]
