"""Behaviour of a network at the border of an image, where programs differ.

`im2im-zoo predict` gives the network the image as it is. deepImageJ, and bioimageio.core on whole images, first mirror the
image at its border by the halo, so the outermost voxels get other numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.networks import Call

# A difference that is not seen, as a fraction of the output's range.
VISIBLE = 1e-3
MIRRORED_TEST_OUTPUT = "test_output_mirrored.npy"


@dataclass(frozen=True)
class Border:
    """Difference of the test output when the image is mirrored by its halo.

    Attributes:
        largest: largest difference, as a fraction of the output's range.
        share: fraction of the voxels that differ by more than a tenth of the range.
        width: distance to the border within which all differences above `VISIBLE` are, in voxels; None if they are everywhere.
    """

    largest: float
    share: float
    width: int | None


def mirrored_output(call: Call, prepared: NDArray[Any], halo: Sequence[int]) -> NDArray[Any]:
    """Return a network's output for an input that is mirrored by the halo, without the mirrored part.

    Args:
        call: the network.
        prepared: its input (batch, channel, *space), on its grid of sizes.
        halo: voxels per space axis, multiples of its step.
    """
    widths = [(0, 0), (0, 0), *((n, n) for n in halo)]
    output = call(np.ascontiguousarray(np.pad(prepared, widths, mode="symmetric")))
    inside = (slice(n, size - n) for n, size in zip(halo, output.shape[2:], strict=True))
    return output[(slice(None), slice(None), *inside)]


def compare_at_border(mirrored: NDArray[Any], output: NDArray[Any]) -> Border:
    """Compare two outputs (batch, channel, *space) of one shape, that of the mirrored image first."""
    differences = np.abs(mirrored.astype(np.float64) - output.astype(np.float64)).max(axis=(0, 1))
    reach = float(np.ptp(output.astype(np.float64))) or 1.0
    distances = np.minimum.reduce(
        np.meshgrid(*(np.minimum(np.arange(n), np.arange(n)[::-1]) for n in differences.shape), indexing="ij")
    )
    seen = distances[differences > VISIBLE * reach]
    width = int(seen.max()) + 1 if seen.size else 0
    everywhere = width > int(distances.max())
    share = float((differences > 0.1 * reach).mean())
    return Border(float(differences.max()) / reach, share, None if everywhere else width)
