"""Regions of blocks that touch across faces and are joined to objects with the ids of the whole image.

A region's id is unique in the image; joined regions have the smallest id. Only regions that touch a face between blocks are joined;
all others are complete within their block.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from im2im_zoo.instances.blockwise.grid import face
from im2im_zoo.instances.blockwise.sample import Sample

# Bytes per region that touches a face, for joining.
_EACH = 160


def keep_regions(
    sample: Sample,
    number: int,
    labels: NDArray[np.int32],
    ids: NDArray[np.int64],
    counts: NDArray[np.int64],
    complete: NDArray[np.bool_],
    open_too: NDArray[np.bool_] | None = None,
) -> None:
    """Save the regions of a block, separately those that touch a face and may be joined.

    Args:
        sample: of the block.
        number: of the block.
        labels: 1..n, 0 is background.
        ids: of the regions, ascending.
        counts: voxels of each region.
        complete: whether a region is an object even if it is not joined.
        open_too: whether a region may be joined although it touches no face.
    """
    at_face = np.zeros(len(ids) + 1, bool)
    known = np.concatenate([[0], ids]).astype(np.int64)
    for axis, far, _ in sample.grid.faces(number):
        plane = face(labels, axis, far)
        at_face[plane] = True
        sample.save("faces", f"{number}_{axis}_{int(far)}", known[plane])
    touches = at_face[1:] if open_too is None else at_face[1:] | open_too
    rows = np.stack([ids, counts, complete])
    sample.save("touching", number, rows[:, touches])
    sample.save("rows", number, rows[:2, ~touches & complete])
    sample.keep_local(number, labels, ids)


def face_pairs(sample: Sample, number: int) -> NDArray[np.int64]:
    """Return the pairs of ids (2, pairs) of touching components of a block and its following neighbours."""
    found = [np.zeros((2, 0), np.int64)]
    for axis, far, other in sample.grid.faces(number):
        if far:
            ours = np.asarray(sample.load("faces", f"{number}_{axis}_1")).ravel()
            theirs = np.asarray(sample.load("faces", f"{other}_{axis}_0")).ravel()
            both = (ours > 0) & (theirs > 0)
            found.append(np.unique(np.stack([ours[both], theirs[both]]), axis=1))
    return np.concatenate(found, axis=1)


@dataclass(frozen=True, slots=True)
class Touching:
    """All regions that may be joined: ids, ascending, voxels, and whether they are objects if they are not joined."""

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    complete: NDArray[np.bool_]

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the indices of ids in `self.ids`."""
        return np.searchsorted(self.ids, ids).astype(np.int32)


def touching(sample: Sample) -> Touching:
    """Load all regions that may be joined.

    Raises:
        PlanError: they do not fit the memory.
    """
    tables = [sample.load("touching", n) for n in range(len(sample.grid))]
    needed = _EACH * sum(t.shape[1] for t in tables)
    sample.check_room(needed, "the parts of objects that touch a face between blocks")
    ids, counts, complete = np.concatenate(tables, axis=1)
    order = np.argsort(ids)
    return Touching(ids[order], counts[order], complete[order] > 0)


def join(sample: Sample) -> None:
    """Join the components that touch across faces, and save the result for each block."""
    found = touching(sample)
    pairs = [found.places(face_pairs(sample, n)) for n in range(len(sample.grid))]
    edges, nodes = np.concatenate(pairs, axis=1), len(found.ids)
    graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), shape=(nodes, nodes))
    number, group = connected_components(graph, directed=False) if nodes else (0, np.zeros(0, np.intp))
    roots = np.full(number, np.iinfo(np.int64).max)
    np.minimum.at(roots, group, found.ids)
    save_joined(sample, found, roots[group])


def save_joined(sample: Sample, found: Touching, roots: NDArray[np.int64]) -> None:
    """Save for each block the object of each of its ids, 0 for none, and the sizes of these objects."""
    known, places = np.unique(roots, return_inverse=True)
    voxels = np.zeros(len(known), np.int64)
    np.add.at(voxels, places, found.counts)
    sample.save("rows", "joined", np.stack([known, voxels])[:, known > 0])
    for number in range(len(sample.grid)):
        ids = sample.load("touching", number)[0]
        sample.save("joined", number, np.stack([ids, roots[found.places(ids)]]))
