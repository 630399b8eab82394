"""The instance segmentation of a prediction: that of the package, or the one that the settings ask for."""

from collections.abc import Mapping

import xarray as xr

from im2im_zoo.core.axes import SPACE, space_axes
from im2im_zoo.core.errors import PlanError
from im2im_zoo.images import pixel_size_um
from im2im_zoo.instances.grouping import INSTANCES, AnyGrouping, Grouping
from im2im_zoo.package import Package
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.layout.mapping import main_input
from im2im_zoo.runtime.settings import Settings


def segmentation_of(
    package: Package, settings: Settings, layout: Layout, images: Mapping[str, xr.DataArray]
) -> AnyGrouping | None:
    """Return the instance segmentation of a prediction; None if it is of maps only.

    Args:
        package: the model.
        settings: `group`, and `thresholding` for a package that states none, or whose own is by a threshold too.
        layout: of the images.
        images: by input, at the pixel size of the model.

    Raises:
        PlanError: the settings do not suit the package.
    """
    check_segmentation(package, settings)
    if not settings.thresholding.is_given:
        return package.grouping if settings.group else None
    (tensor,) = package.outputs
    axes = {str(axis.id): axis for axis in tensor.axes}
    space = [str(a) for a in space_axes(axes)]
    channels = next((axis.channel_names for axis in tensor.axes if axis.type == "channel"), ["0"])
    sizes = dict(pixel_size_um(images[main_input(package)]))
    for axis in layout.network_axes:
        port = None if axis.network is None else axis.network.outputs[0]
        if axis.name in sizes and port is not None:
            sizes[axis.name] /= float(port.scale)
    stated = package.grouping.kwargs if isinstance(package.grouping, Grouping) else None
    return settings.thresholding.grouping(str(tensor.id), [str(n) for n in channels], space, sizes, stated)


def check_segmentation(package: Package, settings: Settings) -> None:
    """Refuse settings of objects that do not suit a package, before an image is opened.

    Raises:
        PlanError: the package has several outputs, no image as its output, or a method that takes no threshold.
    """
    if not settings.thresholding.is_given:
        return
    if not settings.group:
        raise PlanError(
            "--no-grouping writes no objects; leave it out, or leave out --threshold and the like"
        )
    known, outputs = package.grouping, package.outputs
    if known is not None and not (isinstance(known, Grouping) and known.method(package.root) == "components"):
        raise PlanError(
            f"{package.name} finds objects by its own method ({known.source}), not by a threshold; leave out --threshold, "
            "--split-touching, --fill-holes, --min-size and --class"
        )
    if len(outputs) > 1 or str(outputs[0].id) == INSTANCES:
        raise PlanError(
            f"{package.name} has the outputs {', '.join(str(t.id) for t in outputs)}; write them without --threshold, then find the "
            "objects of one with `im2im-zoo objects MAP TABLE --threshold N`"
        )
    axes = {str(axis.id) for axis in outputs[0].axes}
    if not {"y", "x"} <= axes <= {"batch", "channel", *SPACE}:
        raise PlanError(
            f"{package.name} predicts no image with y and x, so there are no objects; leave out --threshold"
        )
    if known is None and settings.thresholding.threshold is None:
        raise PlanError(
            f"{package.name} predicts a map; add --threshold, above which its values are objects (0.5 for a probability)"
        )
