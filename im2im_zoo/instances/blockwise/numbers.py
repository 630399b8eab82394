"""Number the objects of a sample 1..N in the order of their ids, with only a part of the ids in memory at a time.

An id is the flat index of an object's seed in the image, plus one, so ids are in raster order of the seeds. Each block has
a table (1 + k, n) of its objects: ids, ascending, and k counts, which are summed over all blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise.sample import Sample

Keep = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a sample's objects.

    Attributes:
        sample: with the tables.
        length: voxels of the flat image per table.
        before: number of objects in the tables before each table; last, the total number.
    """

    sample: Sample
    length: int
    before: NDArray[np.int64]

    @classmethod
    def of(cls, sample: Sample) -> "Numbers":
        """Load the numbers that `number_objects` saved."""
        (length,), before = sample.load("numbers", "length"), sample.load("numbers", "before")
        return cls(sample, int(length), np.asarray(before))

    @property
    def objects(self) -> int:
        """Number of objects."""
        return int(self.before[-1])

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each id, or 0 for an id that is not an object."""
        found = np.zeros(len(ids), np.int64)
        parts = (ids - 1) // self.length
        for part in np.unique(parts[ids > 0]):
            if self.before[part] == self.before[part + 1]:
                continue
            known = self.sample.load("numbers", int(part))
            ours = np.flatnonzero(parts == part)
            at = np.searchsorted(known, ids[ours])
            is_object = known[np.minimum(at, len(known) - 1)] == ids[ours]
            found[ours[is_object]] = self.before[part] + at[is_object] + 1
        return found


def number_objects(sample: Sample, kind: str, keep: Keep) -> Numbers:
    """Number the objects that are kept.

    Args:
        sample: with tables of this kind; see the module.
        kind: of the tables.
        keep: returns which columns of the summed table (1 + k, n) are objects.
    """
    length = int(np.prod(sample.grid.block))
    parts = -(-sample.grid.voxels // length)
    names = sorted(path.stem for path in (sample.folder / kind).glob("*.npy"))
    ends = np.array([_ends(sample.load(kind, name)[0]) for name in names]).reshape(-1, 2)
    before = np.zeros(parts + 1, np.int64)
    for part in range(parts):
        low, high = part * length + 1, (part + 1) * length + 1
        near = np.flatnonzero((ends[:, 0] < high) & (ends[:, 1] >= low))
        before[part + 1] = before[part]
        if not len(near):
            continue
        ids = _kept(sample, kind, [names[i] for i in near], (low, high), keep)
        before[part + 1] += len(ids)
        sample.save("numbers", part, ids)
    sample.save("numbers", "before", before)
    sample.save("numbers", "length", np.array([length]))
    return Numbers.of(sample)


def _ends(ids: NDArray[np.int64]) -> tuple[int, int]:
    return (int(ids[0]), int(ids[-1])) if len(ids) else (1, 0)


def _kept(
    sample: Sample, kind: str, names: list[str], span: tuple[int, int], keep: Keep
) -> NDArray[np.int64]:
    tables = []
    for name in names:
        table = sample.load(kind, name)
        first, last = np.searchsorted(table[0], span)
        tables.append(np.asarray(table[:, first:last]))
    rows = np.concatenate(tables, axis=1)
    ids, places = np.unique(rows[0], return_inverse=True)
    added = np.zeros((len(rows), len(ids)), np.int64)
    added[0] = ids
    for row, counts in zip(added[1:], rows[1:], strict=True):
        np.add.at(row, places, counts)
    return ids[keep(added)]
