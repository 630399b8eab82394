"""Settings of a prediction, which change its result, and resources, which do not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.jobs import Executor
from im2im_zoo.core.sizes import parse_size

Halo = int | Mapping[str, int] | Literal["auto", "declared", "exact"]


@dataclass(frozen=True, slots=True)
class Format:
    """How outputs are written.

    Attributes:
        ome_zarr_version: 0.4 or 0.5 (default: 0.5).
        shards: whether OME-Zarr 0.5 is written in shards (default: where there would be more than 10,000 chunks).
    """

    ome_zarr_version: str | None = None
    shards: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose that changes the result.

    Attributes:
        tile: voxels of a tile by axis, halo included (default: those that compute the least within the memory).
        halo: voxels of the input at each end of a tile that are not kept. `auto`: the smallest with which tiles agree with
            the whole within the package's own tolerance, measured on its test tensors, and never less than it declares;
            `exact`: the receptive field, found by probing; `declared`: as the RDF says; or voxels.
        blend: whether overlapping tiles are averaged (default: only where nothing makes tiles exact).
        weights: the only weights format to use (default: the fastest).
        backend: the only library to use (default: the fastest).
        precision: of the network's numbers: float32, or float16 or bfloat16 where the test tensors are still reproduced.
        dtype: of the output images (default: that of the RDF), or of the label image.
        rescale: whether the image is resampled to the pixel size that the model declares, and the result back.
        format: how outputs are written.
        group: whether the maps of a package for instance segmentation become labels.

    Example:
        >>> from im2im_zoo import Settings
        >>> Settings(halo={"y": 32, "x": 32}, dtype="uint8").halo
        {'y': 32, 'x': 32}
    """

    tile: Mapping[str, int] | None = None
    halo: Halo = "auto"
    blend: bool | None = None
    weights: str | None = None
    backend: str | None = None
    precision: str = "float32"
    dtype: str | None = None
    rescale: bool = False
    format: Format = field(default_factory=Format)
    group: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a prediction may use; the result is the same whatever it is.

    Attributes:
        memory: bytes that all processes may take together, or a text such as `4GB` (default: half of what is available).
        workers: processes that run tiles and blocks.
        threads: of the network within one process (default: as the library chooses).
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        executor: runs tiles and blocks, instead of `workers` processes; see `docs/adding-an-executor.md`.

    Raises:
        PlanError: a memory that is not a size, or fewer than one worker.

    Example:
        >>> from im2im_zoo import Resources
        >>> Resources(memory="4GB", workers=4).memory_bytes
        4000000000
    """

    memory: int | str | None = None
    workers: int = 1
    threads: int | None = None
    device: str = "auto"
    executor: Executor | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise PlanError(f"workers is {self.workers}; give at least 1")
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int | None:
        """The memory as a number of bytes, if it is stated."""
        if not isinstance(self.memory, str):
            return self.memory
        try:
            return parse_size(self.memory)
        except ValueError as error:
            raise PlanError(f"memory: {error}") from error

    @property
    def processes(self) -> int:
        """Processes on this host that each hold a network."""
        return self.workers if self.executor is None else self.executor.processes
