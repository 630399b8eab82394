"""Projection of the peak memory of a prediction, by one pure function (`project`)."""

from dataclasses import asdict, dataclass, replace

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text, size_option

MIB = 1024**2

# Size of the blocks in which an image is read for its statistics (see `processing.fit`).
STATISTICS_BLOCK_BYTES = 64 * MIB
# Most copies of a tile in memory at once. Input: one that is computed, one that waits, and one that is read and
# preprocessed with a temporary and a padded copy. Output: one that the network computes, one that waits, and one that is
# postprocessed with temporaries for cast and transposition.
_IN_COPIES, _OUT_COPIES = 5, 5
# Python, caches of libraries, compressed chunks of the file, and freed blocks that the allocator keeps.
_SLACK_BYTES = 192 * MIB
_MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Cost:
    """The memory of a network in bytes, without its input and output arrays.

    Attributes:
        process: resident memory of the process with the network loaded.
        call: of a call of any size.
        per_voxel: of a call per voxel of the tile, for all channels and activations.
        measured: whether it was measured on this machine rather than guessed.
        voxels: of the largest tile in the measurement; 0 if unknown.
    """

    process: int
    call: int
    per_voxel: float
    measured: bool = True
    voxels: int = 0

    @classmethod
    def guess(cls, weights_bytes: int) -> "Cost":
        """Estimate the cost without loading the network, as of a U-Net with 64 channels at full resolution.

        Args:
            weights_bytes: size of the weights file.
        """
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
        """The peak in bytes, over parts that are in memory at the same time, with one more process if there are workers."""
        return max(self._prediction, self.of_grouping)

    @property
    def of_grouping(self) -> int:
        """The peak during instance segmentation, when the tiles' workers have ended; 0 without instance segmentation."""
        if not self.grouping:
            return 0
        one = self.process + _MARGIN * self.grouping + self.slack
        return int(one if self.group_workers == 1 else self.process + self.slack + self.group_workers * one)

    def room_to_group(self, budget: int) -> int:
        """Return the bytes per process for instance segmentation within a budget; negative if there are none."""
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
        """Return the parts and their total as JSON values."""
        return {**asdict(self), "total": self.total}


def project(
    cost: Cost,
    *,
    tile_voxels: int,
    in_values: float,
    out_values: float,
    in_itemsize: int = 4,
    chunk_bytes: int = 0,
    decoding_bytes: int = 0,
    whole_bytes: int = 0,
    statistics: bool = True,
    workers: int = 1,
    grouping: int = 0,
    group_workers: int = 1,
) -> Projection:
    """Project the peak resident memory of a prediction.

    Args:
        cost: of the network.
        tile_voxels: voxels of a tile, in voxels of the reference, without channels.
        in_values, out_values: values of all input and output tensors per voxel of the reference.
        in_itemsize: bytes per value of the image file.
        chunk_bytes: uncompressed bytes of one chunk of each input.
        decoding_bytes: most bytes that decoding takes at once, of each input.
        whole_bytes: bytes of all copies of whole images that operations keep in memory.
        statistics: whether a pass over the image computes statistics.
        workers: processes that run tiles; if above 1, one more process coordinates them.
        grouping: bytes for instance segmentation, in each of `group_workers` processes.
        group_workers: processes that segment blocks.
    """
    arrays = tile_voxels * (_IN_COPIES * in_values * max(4, in_itemsize) + _OUT_COPIES * 4 * out_values)
    # A tile is decoded from the chunks that it covers, and one more along each border.
    decoded = min(decoding_bytes, 4 * chunk_bytes + tile_voxels * in_values * in_itemsize)
    return Projection(
        process=cost.process,
        network=int(cost.call + cost.per_voxel * tile_voxels),
        arrays=int(arrays + decoded),
        whole=whole_bytes,
        statistics=2 * STATISTICS_BLOCK_BYTES + decoding_bytes if statistics else 0,
        slack=_SLACK_BYTES,
        workers=workers,
        grouping=grouping,
        group_workers=group_workers,
    )


def check_least_budget(budget: int, resident: int) -> None:
    """Refuse a budget that no plan can keep, before a network is loaded.

    Args:
        budget: bytes that all processes may use together.
        resident: bytes that this process uses now.

    Raises:
        PlanError: the budget is smaller than what the process takes without a network and a tile.
    """
    least = resident + _SLACK_BYTES
    if budget < least:
        raise PlanError(
            f"{bytes_text(budget)} of memory is not enough: without the network and a tile, this process needs {bytes_text(least)}; "
            f"pass --memory with more than {size_option(least)}"
        )


def default_budget() -> int:
    """Return half of the memory that is available now, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available // 2)
