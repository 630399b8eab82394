"""Objects from the maps of EmbedSeg: voxels whose arrows point at one place, one object after the other. Needs numpy alone.

Each voxel says where the centre of its object is (an offset), how large the object is (a sigma), and how likely it is
near that centre (a seediness). The surest voxel that is left is a seed: those whose place lies within the seed's
Gaussian, above one half, are its object, and are taken out.

Lalit et al., Embedding-based Instance Segmentation in Microscopy, MIDL 2021, arXiv:2101.10033, section 2.3, after Neven et
al. 2019, arXiv:1906.11109. As there, an object more than half of whose voxels were taken by earlier ones is dropped, with all
its voxels. Unlike their code, an object never takes voxels from an earlier one, and only voxels whose places are near
a seed are looked at: places are kept in boxes, so that the result is that of looking at all of them.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

# exp(-d) > 1/2 where d = sum((place - centre)² / (2 sigma²)) is less than this.
_HALF = float(np.log(2))
# Voxels of a box along each axis. Boxes that follow each other along x are read at once.
_BOX = 8
_SMALLEST_SIGMA = np.float32(1e-6)
_PART = 4096


def group(
    maps: NDArray[np.float32],
    seed_threshold: float = 0.9,
    foreground_threshold: float = 0.5,
    min_size: int = 1,
) -> NDArray[np.int32]:
    """Labels of the objects, 1..N in raster order of their seeds, 0 for background.

    Args:
        maps: (channel, (z,) y, x), the channels: offsets along (z,) y, x in voxels; sigmas along (z,) y, x in voxels;
            seediness, 0 to 1.
        seed_threshold: a seed has more seediness.
        foreground_threshold: voxels with no more seediness are background.
        min_size: voxels; an object that would have fewer is background.

    Raises:
        ValueError: another number of channels.
    """
    maps = np.asarray(maps, np.float32)
    axes = maps.ndim - 1
    if axes not in (2, 3) or len(maps) != 2 * axes + 1:
        raise ValueError(
            f"maps of shape {maps.shape}: give (channel, (z,) y, x) with an offset and a sigma along each axis and the "
            "seediness as channels, 5 in 2D and 7 in 3D"
        )
    shape = maps.shape[1:]
    flat = maps.reshape(len(maps), -1)
    voxels = np.flatnonzero(flat[-1] > foreground_threshold)
    values = flat.take(voxels, axis=1)
    finite = np.isfinite(values).all(0)
    if not finite.all():
        voxels, values = voxels[finite], values[:, finite]
    values[:axes] += np.stack(np.unravel_index(voxels, shape))
    order, starts = _boxed(values[:axes], shape)
    # From here on the voxels come box by box.
    voxels, values = voxels[order], values.take(order, axis=1)
    places, sigmas, seediness = values[:axes], values[axes:-1], values[-1]
    found, seeds = _objects(
        places, sigmas, seediness, voxels, shape, starts, seed_threshold, max(min_size, 1)
    )
    ranks = np.zeros(len(seeds) + 1, np.int32)
    ranks[1:][np.argsort(voxels[seeds])] = np.arange(1, len(seeds) + 1)
    labels = np.zeros(flat.shape[1], np.int32)
    labels[voxels] = ranks[found]
    return labels.reshape(shape)


def _objects(
    places: NDArray[np.float32],
    sigmas: NDArray[np.float32],
    seediness: NDArray[np.float32],
    voxels: NDArray[np.intp],
    shape: tuple[int, ...],
    starts: NDArray[np.intp],
    seed_threshold: float,
    min_size: int,
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The number of each voxel's object, in the order in which they are found, and the seed of each object."""
    found = np.zeros(len(voxels), np.int32)
    left = np.ones(len(voxels), bool)
    seeds: list[int] = []
    # The surest first; of equals, the first in raster order.
    sure = np.flatnonzero(seediness > seed_threshold)
    queue = sure[np.lexsort((voxels[sure], -seediness[sure]))]
    for seed in _still(left, queue):
        centre, sigma = places[:, seed], np.maximum(sigmas[:, seed], _SMALLEST_SIGMA)
        near = _near(centre, sigma, shape, starts)
        distance = np.zeros(len(near), np.float32)
        with np.errstate(over="ignore"):  # infinitely far is far
            for axis in range(len(centre)):
                scaled = (places[axis].take(near) - centre[axis]) / sigma[axis]
                distance += scaled * scaled
        members = near[distance < 2 * _HALF]
        fresh = members[left[members]]
        left[members] = False
        if len(fresh) >= min_size and 2 * len(fresh) > len(members):
            seeds.append(seed)
            found[fresh] = len(seeds)
    return found, np.array(seeds, np.intp)


def _still(left: NDArray[np.bool_], queue: NDArray[np.intp]) -> Iterator[int]:
    """The voxels of a queue in its order, without those that are no longer left when it is their turn."""
    for start in range(0, len(queue), _PART):
        part = queue[start : start + _PART]
        while len(part := part[left[part]]):
            yield int(part[0])
            part = part[1:]


def _boxed(places: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order in which places of a box follow each other, boxes in raster order, and where each box starts."""
    counts = _counts(shape)
    boxes = np.ravel_multi_index(
        tuple(_box(places[axis], counts[axis]) for axis in range(len(shape))), counts
    )
    order = np.argsort(boxes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(boxes, minlength=int(np.prod(counts))))])
    return order, starts


def _near(
    centre: NDArray[np.float32], sigma: NDArray[np.float32], shape: tuple[int, ...], starts: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The voxels in all boxes that reach into the ellipsoid where the Gaussian is above one half."""
    counts = _counts(shape)
    reach = sigma * np.sqrt(2 * _HALF) * 1.001  # rounding must not lose a voxel
    ends = np.stack([centre - reach, centre + reach])
    low, high = _box(ends, np.array(counts)).tolist()
    rows = product(*(range(a, b + 1) for a, b in zip(low[:-1], high[:-1], strict=True)))
    first = [np.ravel_multi_index((*row, low[-1]), counts) for row in rows]
    width = high[-1] - low[-1] + 1
    return np.concatenate([np.arange(starts[box], starts[box + width]) for box in first])


def _counts(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-size // _BOX) for size in shape)


def _box(places: NDArray[np.float32], count: int | NDArray[np.intp]) -> NDArray[np.intp]:
    """The box of each place along its axis; those outside the image are in the outermost."""
    return np.clip(np.floor(places / _BOX), 0, count - 1).astype(np.intp)
