"""Export of trained networks as bioimage.io packages, validation of any package, and the programs that run it."""

from im2im_zoo.packaging.editing.add_weights import AddedWeights, add_weights
from im2im_zoo.packaging.editing.changes import Changes
from im2im_zoo.packaging.editing.edit import Edited, edit_package
from im2im_zoo.packaging.editing.upgrade import Upgraded, upgrade_package
from im2im_zoo.packaging.export.export import Exported, export_package
from im2im_zoo.packaging.export.geometry import network_grid
from im2im_zoo.packaging.export.portable import Portable, PortableLoss, make_portable
from im2im_zoo.packaging.export.rdf.content import Metrics
from im2im_zoo.packaging.publishing.publication import Publication, prepare_publication
from im2im_zoo.packaging.publishing.publish import Published, publish_package
from im2im_zoo.packaging.validation.findings import ValidationReport
from im2im_zoo.packaging.validation.validate import validate_package

__all__ = [
    "AddedWeights",
    "Changes",
    "Edited",
    "Exported",
    "Metrics",
    "Portable",
    "PortableLoss",
    "Publication",
    "Published",
    "Upgraded",
    "ValidationReport",
    "add_weights",
    "edit_package",
    "export_package",
    "make_portable",
    "network_grid",
    "prepare_publication",
    "publish_package",
    "upgrade_package",
    "validate_package",
]
