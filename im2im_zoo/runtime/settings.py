"""Settings of a prediction, which change its result, and resources, which do not."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.jobs import Executor
from im2im_zoo.core.sizes import parse_size
from im2im_zoo.images.formats.ome_zarr.write import VERSIONS
from im2im_zoo.instances.thresholding import Thresholding

PRECISIONS = ("float32", "bfloat16", "float16")
Halo = int | Mapping[str, int] | Literal["auto", "declared", "exact"]


@dataclass(frozen=True, slots=True)
class Format:
    """The file format of the outputs.

    Attributes:
        ome_zarr_version: 0.4 or 0.5 (default: 0.5).
        shards: whether OME-Zarr 0.5 is written in shards (default: only from 10,000 chunks on).

    Raises:
        PlanError: the version is not written.
    """

    ome_zarr_version: str | None = None
    shards: bool | None = None

    def __post_init__(self) -> None:
        if self.ome_zarr_version not in (None, *VERSIONS):
            raise PlanError(
                f"OME-Zarr {self.ome_zarr_version!r} is not written; choose one of {', '.join(VERSIONS)} (--ome-zarr)"
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of a user that change the result.

    Attributes:
        tile: voxels of a tile by axis, halo included (default: the tiles with the least computation within the memory).
        halo: voxels of the input at each end of a tile that are discarded. `auto`: the smallest halo with which tiles agree
            with the whole image within the package's own tolerance, measured on its test tensors, and never less than it
            declares; `exact`: the receptive field, measured by probing; `declared`: the RDF's; or a number of voxels.
        blend: whether overlapping tiles are averaged (default: only where no halo makes tiles exact).
        weights: the only weights format to use (default: the fastest).
        backend: the only library to use (default: the fastest).
        precision: float32, or float16 or bfloat16 if the network still reproduces the package's test tensors.
        dtype: of the output images (default: that of the RDF), or of the label image.
        rescale: whether the image is resampled to the pixel size that the model declares, and the result back.
        format: the file format of the outputs.
        group: whether maps are post-processed into instance labels, if the package can.
        thresholding: how a map becomes objects, of a package that does not say it.

    Raises:
        PlanError: the precision or the data type is unknown.

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
    thresholding: Thresholding = field(default_factory=Thresholding)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise PlanError(f"precision: {self.precision!r} is unknown; use {', '.join(PRECISIONS)}")
        if self.dtype is not None:
            try:
                np.dtype(self.dtype)
            except TypeError as error:
                raise PlanError(
                    f"dtype: {self.dtype!r} is not a numpy type; use for example uint8, uint16 or float32"
                ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        plain = {key: value for key, value in asdict(self).items() if key != "thresholding"}
        # As before there were any, so that earlier predictions are recognised.
        return plain | ({"thresholding": self.thresholding.to_json()} if self.thresholding.is_given else {})


@dataclass(frozen=True, slots=True)
class Resources:
    """Memory, processes and devices of a prediction; they do not change the result, up to rounding.

    With the same number of threads per process, every executor and number of workers gives the same bits. With another number,
    torch on a CPU selects other algorithms that add in another order: results differ by about 1e-6 of the largest value. By
    default the number of threads depends on `workers`, so set `threads` where bits have to match. Another kind of processor
    or GPU rounds differently, too.

    Attributes:
        memory: bytes that all processes may use together, or a text such as `4GB` (default: half of the available memory).
        workers: processes that run tiles and blocks.
        threads: of the network in one process (default: the processors of this host divided by `workers`; in this process, the
            library's choice).
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        executor: runs tiles and blocks, instead of `workers` processes; see `docs/adding-an-executor.md`.

    Raises:
        PlanError: `memory` is not a size, `workers` or `threads` is below 1, or `device` is unknown.

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
            raise PlanError(f"workers is {self.workers}; use at least 1")
        if self.threads is not None and self.threads < 1:
            raise PlanError(
                f"threads is {self.threads}; use at least 1 (--threads), or leave it out for the library's choice"
            )
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise PlanError(f"device: {self.device!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes, or None for the default."""
        if not isinstance(self.memory, str):
            return self.memory
        try:
            return parse_size(self.memory)
        except ValueError as error:
            raise PlanError(f"memory: {error}") from error

    @property
    def processes(self) -> int:
        """Number of processes on this host that each hold a network."""
        return self.workers if self.executor is None else self.executor.processes
