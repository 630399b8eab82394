"""From a trained network to a bioimage.io package that behaves the same everywhere, and checking any package."""

from im2im_zoo.packaging.consumers.programs import ConsumerVerdict, consumer_table
from im2im_zoo.packaging.export.export import Exported, export_package
from im2im_zoo.packaging.export.geometry import network_grid
from im2im_zoo.packaging.export.portable import Portable, PortableLoss, make_portable
from im2im_zoo.packaging.export.rdf.content import Metrics
from im2im_zoo.packaging.validation.checks.core import core_verdict
from im2im_zoo.packaging.validation.drafts import missing_metadata
from im2im_zoo.packaging.validation.findings import Finding, ValidationReport
from im2im_zoo.packaging.validation.validate import validate_package

__all__ = [
    "ConsumerVerdict",
    "Exported",
    "Finding",
    "Metrics",
    "Portable",
    "PortableLoss",
    "ValidationReport",
    "consumer_table",
    "core_verdict",
    "export_package",
    "make_portable",
    "missing_metadata",
    "network_grid",
    "validate_package",
]
