"""Connected components block by block: each block's own, joined where they touch across a face. Exactly those of the whole image.

A component's id is its first voxel in raster order: of components that are joined, the least. Only those that touch a face
between blocks are ever looked at together; all others are known when their block is.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from im2im_zoo.grouping import components
from im2im_zoo.runtime.blockwise.grid import face
from im2im_zoo.runtime.blockwise.numbers import number_objects
from im2im_zoo.runtime.blockwise.order import first_voxels
from im2im_zoo.runtime.blockwise.sample import Sample, arguments
from im2im_zoo.runtime.blockwise.steps import Step

# Bytes that joining takes for a component that touches a face.
_EACH = 160


def steps(sample: Sample) -> Iterator[Step]:
    """What makes the numbers of all objects; see `blockwise.run`."""
    yield Step("find", range(len(sample.grid)), find)
    join(sample, (face_pairs(sample, n) for n in range(len(sample.grid))))
    at_least = arguments(components.group, sample.code.grouping.kwargs)["min_size"]
    number_objects(sample, "rows", lambda rows: rows[1] >= at_least)


def find(sample: Sample, number: int) -> None:
    """The components of one block."""
    given = arguments(components.group, sample.code.grouping.kwargs)
    region = sample.grid.region(number)
    maps = sample.read(region, given["channel"])
    labels = components.group(maps, threshold=given["threshold"])
    del maps
    ids = 1 + sample.grid.flat(region, first_voxels(labels))
    sizes = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:].astype(np.int64)
    keep_regions(sample, number, labels, ids, sizes, np.ones(len(ids), bool))


def keep_regions(
    sample: Sample,
    number: int,
    labels: NDArray[np.int32],
    ids: NDArray[np.int64],
    counts: NDArray[np.int64],
    complete: NDArray[np.bool_],
) -> None:
    """Keep the regions of a block: what touches a face apart, as it is to be joined.

    Args:
        labels: 1..n, 0 background.
        ids, counts: of each region, and how many voxels it has.
        complete: whether it is an object by itself, if it touches no face.
    """
    touching = np.zeros(len(ids) + 1, bool)
    known = np.concatenate([[0], ids]).astype(np.int64)
    for axis, far, _ in sample.grid.faces(number):
        plane = face(labels, axis, far)
        touching[plane] = True
        sample.save("faces", f"{number}_{axis}_{int(far)}", known[plane])
    touches = touching[1:]
    rows = np.stack([ids, counts])
    sample.save("touching", number, rows[:, touches])
    closed = rows[:, ~touches & complete]
    sample.save("rows", number, closed[:, np.argsort(closed[0])])
    sample.keep_local(number, labels, ids)


def face_pairs(sample: Sample, number: int) -> NDArray[np.int64]:
    """(2, pairs): components of a block and of those after it that touch each other."""
    found = [np.zeros((2, 0), np.int64)]
    for axis, far, other in sample.grid.faces(number):
        if far:
            ours = np.asarray(sample.load("faces", f"{number}_{axis}_1")).ravel()
            theirs = np.asarray(sample.load("faces", f"{other}_{axis}_0")).ravel()
            both = (ours > 0) & (theirs > 0)
            found.append(np.unique(np.stack([ours[both], theirs[both]]), axis=1))
    return np.concatenate(found, axis=1)


def join(sample: Sample, pairs: Iterator[NDArray[np.int64]]) -> None:
    """Find what belongs together of all that touches a face, and say it to each block."""
    tables = [np.asarray(sample.load("touching", n)) for n in range(len(sample.grid))]
    sample.check_room(
        _EACH * sum(t.shape[1] for t in tables), "the components that touch a face between blocks"
    )
    ids, counts = np.concatenate(tables, axis=1)
    order = np.argsort(ids)
    ids, counts = ids[order], counts[order]
    edges = np.searchsorted(ids, np.concatenate(list(pairs), axis=1))
    graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), shape=(len(ids), len(ids)))
    number, group = connected_components(graph, directed=False) if len(ids) else (0, np.zeros(0, np.intp))
    roots = np.full(number, np.iinfo(np.int64).max)
    np.minimum.at(roots, group, ids)
    voxels = np.zeros(number, np.int64)
    np.add.at(voxels, group, counts)
    by_root = np.argsort(roots)
    sample.save("rows", "joined", np.stack([roots, voxels])[:, by_root])
    for n, table in enumerate(tables):
        theirs = roots[group[np.searchsorted(ids, table[0])]]
        sample.save("joined", n, np.stack([table[0], theirs]))
