"""Protocol of an output image that is written region by region."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class Sink(Protocol):
    """Regions of an output image, each written once, in any order."""

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region; the block has the axes of the output image."""
