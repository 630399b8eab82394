"""Inputs of a description: names and hashes of the files, measurements, and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from im2im_zoo.packaging.export.border import Border
from im2im_zoo.packaging.export.geometry import Geometry
from im2im_zoo.processing import Operation

DTYPES = (
    "float32",
    "float64",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "bool",
)
COMPARISON = "validation.png"


@dataclass(frozen=True)
class MovedIntoGraph:
    """Operations of the recipe that moved into the network's graph.

    Attributes:
        before, after: in front of the trained network, and behind it.
        change: change of the test output, as a fraction of its largest value.
    """

    before: Sequence[Operation]
    after: Sequence[Operation]
    change: float


@dataclass(frozen=True)
class Measured:
    """Measurements of the images and the network: dtypes and channel names of both tensors, sizes, pixel sizes.

    Attributes:
        raw_dtype: dtype of the images.
        input_dtype: dtype of the RDF's input tensor, which is past the custom operations.
        tolerance: the RDF's reproducibility tolerance, None if there is none to declare.
        in_graph: processing inside the network, None if there is none.
        border: effect of mirroring the image at its border, None if it cannot be mirrored.
    """

    raw_dtype: str
    input_dtype: str
    output_dtype: str
    input_channels: tuple[str, ...]
    output_channels: tuple[str, ...]
    pixel_size_um: Mapping[str, float]
    geometry: Geometry
    parameters: int
    tolerance: Mapping[str, float] | None = None
    in_graph: MovedIntoGraph | None = None
    border: Border | None = None


@dataclass(frozen=True)
class Metrics:
    """Metrics of a package on held-out images.

    Attributes:
        values: metrics of the package itself, by name.
        baselines: metrics of trivial methods, named `METHOD METRIC`.
        portable: for a portable model, `portable.Portable.record`.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    portable: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Content:
    """Names of the files of the package, relative to it, and their SHA-256."""

    hashes: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> dict[str, str]:
        """Return a file's entry in the RDF."""
        return {"source": name, "sha256": self.hashes[name]}
