"""Which values training can take: what becomes of them as float32. Nothing is processed."""

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.matching import Side

# float32 counts exactly up to here; beyond it, labels would merge.
_LARGEST_LABEL = 2**24


def checked_float32(values: NDArray[np.generic], source: str, side: Side) -> NDArray[np.float32]:
    """The values as float32.

    Args:
        values: of any shape, preprocessed.
        source: their file, for messages.
        side: what they are of.

    Raises:
        DataError: labels that would merge, a cost below 0, values that are not finite.
    """
    if (
        side != "cost"
        and values.dtype.kind in "iu"
        and max(int(values.max()), -int(values.min())) > _LARGEST_LABEL
    ):
        raise DataError(
            f"{source}: values above {_LARGEST_LABEL} do not survive as float32, so labels would merge; "
            f"relabel the image from 1, or scale it in {side}.preprocessing"
        )
    result = values.astype(np.float32)
    if side == "cost" and not (np.isfinite(result) & (result >= 0)).all():
        raise DataError(
            f"{source}: a cost map says how much each voxel counts, so its values have to be finite and at least 0; "
            "correct the file, or choose another channel of it in data.cost_channels"
        )
    if not np.isfinite(result).all():
        raise DataError(
            f"{source}: holds values that are not finite (NaN or infinite) after {side}.preprocessing; replace them "
            "in the file, for instance by 0"
        )
    return result
