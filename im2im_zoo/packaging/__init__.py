"""From a trained network to a bioimage.io package that behaves the same everywhere, and checking any package."""

from im2im_zoo.packaging.consumers import ConsumerVerdict, consumer_table
from im2im_zoo.packaging.core_check import core_verdict
from im2im_zoo.packaging.drafts import missing_metadata
from im2im_zoo.packaging.export import Exported, export_package
from im2im_zoo.packaging.findings import Finding, ValidationReport
from im2im_zoo.packaging.geometry import network_grid
from im2im_zoo.packaging.grouping import group_function, labels_of
from im2im_zoo.packaging.portable import Portable, PortableLoss, make_portable
from im2im_zoo.packaging.sample import predict_sample
from im2im_zoo.packaging.validate import validate_package

__all__ = [
    "ConsumerVerdict",
    "Exported",
    "Finding",
    "Portable",
    "PortableLoss",
    "ValidationReport",
    "consumer_table",
    "core_verdict",
    "export_package",
    "group_function",
    "labels_of",
    "make_portable",
    "missing_metadata",
    "network_grid",
    "predict_sample",
    "validate_package",
]
