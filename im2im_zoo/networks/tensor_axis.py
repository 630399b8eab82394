"""One axis of an image in each tensor of a network with several inputs and outputs. Integers only."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class TensorAxis:
    """An axis in one tensor: dimension `dim`, of `floor(size * scale) + offset` voxels.

    `size` counts the voxels of the reference, the first input that has the axis. An `offset` is cut off, or added, in equal
    parts at both ends (bioimage.io spec 0.4, `offset`); if it is odd, one more at the far end.
    """

    dim: int
    scale: Fraction = Fraction(1)
    offset: int = 0

    def size(self, reference: int) -> int:
        """Return the voxels in this tensor for a number of voxels of the reference."""
        return int(reference * self.scale) + self.offset

    @property
    def shift(self) -> int:
        """Position of the tensor's first voxel, in its own voxels from the reference's first: above 0 if it is cropped."""
        return (-self.offset) // 2 if self.offset < 0 else -(self.offset // 2)


@dataclass(frozen=True, slots=True)
class NetworkAxis:
    """One axis (z, y, x, time) along which a network may be run at several sizes.

    Attributes:
        name: of the axis.
        minimum, step: valid sizes of the network, in voxels of the reference: `minimum + n * step`.
        fixed: whether it takes the minimum only.
        inputs, outputs: one a tensor; None where a tensor does not have the axis.
    """

    name: str
    minimum: int
    step: int
    fixed: bool
    inputs: tuple[TensorAxis | None, ...]
    outputs: tuple[TensorAxis | None, ...]
