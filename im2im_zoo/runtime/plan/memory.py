"""How much memory a prediction takes: one pure function, `project`, and how it adds up. Measures nothing."""

from dataclasses import asdict, dataclass, replace

MIB = 1024**2

# Blocks in which statistics are taken of the image (see `processing.fit`).
STATISTICS_BLOCK_BYTES = 64 * MIB
# Copies of a tile that are alive at once at most. Of the input: one that is computed, one that waits for it, one that is
# read and processed, with a temporary and the padded one. Of the output: one that the network makes, one that waits, one
# that is processed, with a temporary, cast and transposed.
_IN_COPIES, _OUT_COPIES = 5, 5
# Chunks of a file that are decoded at the same time (zarr's `async.concurrency`).
_CHUNKS_AT_ONCE = 10
# Python, libraries' caches, compressed chunks of the file, and freed blocks that are kept for the next ones.
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
        voxels: of the largest tile that it was measured with; 0 if that is not known.
    """

    process: int
    call: int
    per_voxel: float
    measured: bool = True
    voxels: int = 0

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
    workers: int = 1
    grouping: int = 0
    group_workers: int = 1

    @property
    def total(self) -> int:
        """The peak: parts that are never alive together count once. Workers have one more process above them."""
        return max(self._prediction, self.of_grouping)

    @property
    def of_grouping(self) -> int:
        """The peak while maps are grouped, when all tiles are done and their workers have ended; 0 if they are not."""
        if not self.grouping:
            return 0
        one = self.process + _MARGIN * self.grouping + self.slack
        return int(one if self.group_workers == 1 else self.process + self.slack + self.group_workers * one)

    def room_to_group(self, budget: int) -> int:
        """The bytes that grouping may take in each process for all to stay within a budget; below 0 if there is none."""
        others = replace(self, grouping=1).of_grouping
        return int((budget - others - 1) / (_MARGIN * self.group_workers))

    @property
    def _prediction(self) -> int:
        tile = self.process + _MARGIN * (self.network + self.arrays) + self.slack
        whole = self.process + _MARGIN * (self.whole + self.statistics) + self.slack
        if self.workers > 1:
            return int(whole + self.workers * tile)
        return int(max(tile + _MARGIN * self.whole, whole))

    def to_json(self) -> dict[str, int]:
        """Plain numbers."""
        return {**asdict(self), "total": self.total}


def project(
    cost: Cost,
    *,
    tile_voxels: int,
    in_values: float,
    out_values: float,
    in_itemsize: int = 4,
    chunk_bytes: int = 0,
    whole_bytes: int = 0,
    statistics: bool = True,
    workers: int = 1,
    grouping: int = 0,
    group_workers: int = 1,
) -> Projection:
    """The peak of resident memory of a prediction.

    Args:
        cost: of the network.
        tile_voxels: voxels of a tile of the reference, without channels.
        in_values, out_values: values of all input and output tensors for one of them.
        in_itemsize: bytes of a value of the image file.
        chunk_bytes: of the image file, for one chunk of each input, uncompressed.
        whole_bytes: arrays of the whole image that an operation keeps in memory, all copies counted.
        statistics: whether a pass over the image takes any.
        workers: processes that run tiles; above 1, one more leads them.
        grouping: bytes that the step from maps to labels takes, in each of `group_workers` processes.
    """
    arrays = tile_voxels * (_IN_COPIES * in_values * max(4, in_itemsize) + _OUT_COPIES * 4 * out_values)
    # A tile is decoded from no more chunks than it has voxels for, and one more along each border.
    decoded = min(_CHUNKS_AT_ONCE * chunk_bytes, 4 * chunk_bytes + tile_voxels * in_values * in_itemsize)
    return Projection(
        process=cost.process,
        network=int(cost.call + cost.per_voxel * tile_voxels),
        arrays=int(arrays + decoded),
        whole=whole_bytes,
        statistics=2 * STATISTICS_BLOCK_BYTES + _CHUNKS_AT_ONCE * chunk_bytes if statistics else 0,
        slack=_SLACK_BYTES,
        workers=workers,
        grouping=grouping,
        group_workers=group_workers,
    )


def default_budget() -> int:
    """Half of the memory that is available now, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available // 2)
