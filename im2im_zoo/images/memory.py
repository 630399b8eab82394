"""Images from arrays in memory."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import parse_axes
from im2im_zoo.core.errors import AxesError


def memory_image(
    array: NDArray[np.generic], *, axes: str | None, pixel_size_um: dict[str, float] | None = None
) -> xr.DataArray:
    """Return an array as an image, as `open_image` returns a file.

    Args:
        array: of as many dimensions as axes.
        axes: letters such as `zyx` or `cyx`, or names separated by commas.
        pixel_size_um: micrometres between voxels, by axis.

    Raises:
        AxesError: no axes, or another number of them than the array has.

    Example:
        >>> import numpy as np
        >>> memory_image(np.zeros((2, 4, 4)), axes="cyx").dims
        ('channel', 'y', 'x')
    """
    if axes is None:
        raise AxesError(f"an array of shape {array.shape}: give its axes, for example axes='yx' or 'czyx'")
    names = parse_axes(axes)
    if len(names) != array.ndim:
        raise AxesError(f"an array of shape {array.shape} does not have the axes {', '.join(names)}")
    image = xr.DataArray(array, dims=names)
    if pixel_size_um:
        image.attrs["pixel_size_um"] = dict(pixel_size_um)
    return image
