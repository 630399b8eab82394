"""The layout of a prediction: its axes, inputs and outputs.

Each axis has one role:

    tile     an axis of the network (z, y, x; time if the model has one): cut into tiles where needed
    whole    an axis of the network that some output lacks, or has at an unrelated size: never cut
    index    an axis of items without a spatial order: never cut, at the sizes that the model takes
    channel  never cut
    batch    the tensor's batch: one sample at a time
    loop     an axis of the images that the model lacks: the model runs at each of its positions, each of which is
             a sample with its own statistics

Sizes are in voxels of the reference: the input tensor whose size along the axis does not follow another tensor's. A
`TensorAxis` describes an axis in each tensor: its place, scale and offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from im2im_zoo.networks.tensor_axis import NetworkAxis
from im2im_zoo.runtime.layout.tiling import Grid

PadMode = Literal["reflect", "symmetric", "edge", "constant"]
Role = Literal["tile", "whole", "index", "channel", "batch", "loop"]


@dataclass(frozen=True, slots=True)
class AxisMap:
    """One axis of the images, of the model, or of both.

    Attributes:
        name: in `AXES`.
        role: see the module.
        size: voxels in the reference's image; 1 if it does not have the axis.
        note: explanation for the user.
        grid: the sizes that the network takes, for an axis of the network.
        network: the axis in all tensors, for an axis of the network.
        crop: voxels at both ends that the network gives no output for.
        declared_halo: voxels, rounded up; None if the RDF declares none.
        in_image: whether the reference's image has the axis.
    """

    name: str
    role: Role
    size: int
    note: str
    grid: Grid | None = None
    network: NetworkAxis | None = None
    crop: int = 0
    declared_halo: int | None = None
    in_image: bool = True


@dataclass(frozen=True, slots=True)
class InputMap:
    """One input tensor and its image.

    Attributes:
        id: of the tensor.
        axes: of the tensor, in its order.
        given: whether there is an image for it; only optional inputs may have none.
        sizes: of its image, for the tensor's axes except batch; 1 where the image does not have the axis.
        dtype: of its image.
        pad, pad_value: padding beyond the image: numpy's modes, and the value of `constant`.
    """

    id: str
    axes: tuple[str, ...]
    given: bool
    sizes: Mapping[str, int]
    dtype: str
    pad: PadMode = "reflect"
    pad_value: float = 0.0


@dataclass(frozen=True, slots=True)
class OutputMap:
    """One output tensor and its image.

    Attributes:
        id: of the tensor.
        axes: of the tensor, in its order.
        dtype: as the RDF declares it.
        sizes: of the whole output, for the tensor's axes except batch; None where they depend on the data.
        image_axes: of the output image, in the order of `AXES`.
        image_shape: of the output image; None if it depends on the data.
        channel_names: of the output image, if it has a channel axis.
        labels: whether its values are numbers of objects or classes.
    """

    id: str
    axes: tuple[str, ...]
    dtype: str
    sizes: Mapping[str, int | None]
    image_axes: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    channel_names: tuple[str, ...] | None
    labels: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it can be written as an image: it has planes of a known size."""
        return (
            self.image_shape is not None
            and {"y", "x"} <= set(self.image_axes)
            and "index" not in self.image_axes
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """All axes, inputs and outputs of a prediction."""

    maps: tuple[AxisMap, ...]
    inputs: tuple[InputMap, ...]
    outputs: tuple[OutputMap, ...]

    def of_role(self, *roles: Role) -> tuple[AxisMap, ...]:
        """Return the axes of some roles."""
        return tuple(m for m in self.maps if m.role in roles)

    @property
    def network_axes(self) -> tuple[AxisMap, ...]:
        """The axes of the network (roles `tile`, `whole` and `index`)."""
        return tuple(m for m in self.maps if m.network is not None)
