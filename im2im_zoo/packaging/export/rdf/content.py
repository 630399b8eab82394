"""What a description is made of: names and hashes of the files, what was measured, and metrics. It describes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from im2im_zoo.packaging.export.geometry import Geometry

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
class Measured:
    """What the images and the network say: dtypes and channel names of both tensors, sizes, pixel sizes.

    `raw_dtype` is that of the images, `input_dtype` that of the RDF's tensor, which is past the custom operations.
    `tolerance` is the RDF's reproducibility tolerance, None if there is none to declare.
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


@dataclass(frozen=True)
class Metrics:
    """Metrics of a package on held-out images.

    Attributes:
        values: of the package itself, by name.
        baselines: of methods without the model, named `METHOD METRIC`.
        portable: of a portable model, `portable.Portable.record`.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    portable: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Content:
    """Names of the files of the package, relative to it, and their SHA-256."""

    hashes: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> dict[str, str]:
        """A file as the RDF refers to it."""
        return {"source": name, "sha256": self.hashes[name]}
