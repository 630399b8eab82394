"""How much memory a prediction takes: one pure function, `project`, and how it adds up. Measures nothing."""

from dataclasses import asdict, dataclass

MIB = 1024**2

# Blocks in which statistics are taken of the image (see `processing.fit`).
STATISTICS_BLOCK_BYTES = 64 * MIB
# Copies of a tile's raw or float32 voxels that are alive at once at most: read, processed (with a temporary),
# padded and contiguous; on the way out: the network's, processed (with a temporary), cast, transposed.
_COPIES = 4
# Python, libraries' caches, decoded chunks of the file and the compressed ones on their way out.
_SLACK_BYTES = 192 * MIB
_MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network takes, in bytes, on top of its arrays.

    Attributes:
        process: the resident memory of the process with the network loaded.
        call: of any call, however small.
        per_voxel: of a call, for each voxel of the tile (all channels together), activations and all.
        measured: whether it was measured on this machine, or is the guess that is made without a network.
    """

    process: int
    call: int
    per_voxel: float
    measured: bool = True

    @classmethod
    def guess(cls, weights_bytes: int) -> "Cost":
        """For a plan that is made without loading the network: a U-Net of 64 channels at full resolution."""
        return cls(512 * MIB + 2 * weights_bytes, 32 * MIB, 2048.0, measured=False)


@dataclass(frozen=True, slots=True)
class Projection:
    """The projected peak of resident memory, in bytes, and its parts."""

    process: int
    network: int
    arrays: int
    whole: int
    statistics: int
    slack: int

    @property
    def total(self) -> int:
        """The peak: parts that are never alive together count once."""
        return int(
            self.process
            + _MARGIN * (max(self.network + self.arrays, self.statistics) + self.whole)
            + self.slack
        )

    def to_json(self) -> dict[str, int]:
        """Plain numbers."""
        return {**asdict(self), "total": self.total}


def project(
    cost: Cost,
    *,
    tile_voxels: int,
    in_channels: int,
    out_channels: int,
    out_scale: float = 1.0,
    in_itemsize: int = 4,
    whole_bytes: int = 0,
    statistics: bool = True,
) -> Projection:
    """The peak of resident memory of a prediction.

    Args:
        cost: of the network.
        tile_voxels: voxels of a tile, without channels.
        in_channels, out_channels: of the tensors.
        out_scale: voxels of output for one of input.
        in_itemsize: bytes of a value of the image file.
        whole_bytes: arrays of the whole image that an operation keeps in memory, all copies counted.
        statistics: whether a pass over the image takes any.
    """
    arrays = tile_voxels * _COPIES * (in_channels * max(4, in_itemsize) + out_channels * 4 * out_scale)
    return Projection(
        process=cost.process,
        network=int(cost.call + cost.per_voxel * tile_voxels),
        arrays=int(arrays),
        whole=whole_bytes,
        statistics=2 * STATISTICS_BLOCK_BYTES if statistics else 0,
        slack=_SLACK_BYTES,
    )


def default_budget() -> int:
    """Half of the memory that is available now, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available // 2)


def bytes_text(count: float) -> str:
    """A number of bytes for a person: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
