"""Settings of a prediction: what a user may choose that changes its result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Halo = int | Mapping[str, int] | Literal["auto", "declared", "exact"]


@dataclass(frozen=True, slots=True)
class Format:
    """How outputs are written: the version of OME-Zarr, and whether in shards (None: where there would be very many chunks)."""

    ome_zarr_version: str | None = None
    shards: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may choose that the result depends on.

    Attributes:
        tile: voxels of a tile by axis, halo included (default: those that compute the least within the memory).
        halo: voxels of the input at each end of a tile that are not kept. `auto`: the smallest with which tiles agree with
            the whole within the package's own tolerance, measured on its test tensors, and never less than it declares;
            `exact`: as far as the network reaches, found by probing; `declared`: as the RDF says; or voxels.
        blend: whether overlapping tiles are averaged (default: only where nothing makes tiles exact).
        weights, backend, precision, device: of the network, see `choice.open_network`.
        dtype: of the output images (default: that of the RDF).
        rescale: whether the image is resampled to the pixel size that the model declares, and the result back.
        format: how outputs are written.
        group: whether the maps of a package with grouping are grouped.
    """

    tile: Mapping[str, int] | None = None
    halo: Halo = "auto"
    blend: bool | None = None
    weights: str | None = None
    backend: str | None = None
    precision: str = "float32"
    device: str = "auto"
    dtype: str | None = None
    rescale: bool = False
    format: Format = field(default_factory=Format)
    group: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
