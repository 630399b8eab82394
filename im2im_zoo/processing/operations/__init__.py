"""The operations of the bioimage.io model spec 0.5, one frozen class and one module each, found by their ids."""

from im2im_zoo.processing.operations.base import Fitted, Requirement, Step
from im2im_zoo.processing.operations.registry import build_step, operation_class, requirements, whole_axes

__all__ = [
    "Fitted",
    "Requirement",
    "Step",
    "build_step",
    "operation_class",
    "requirements",
    "whole_axes",
]
