"""EmbedSeg's clustering in blocks: seeds in rounds, then their members, with the labels of the whole image.

    candidates/HOME/BLOCK   voxels of BLOCK that may be seeds, and point into HOME
    wide/BLOCK              candidates of BLOCK whose Gaussian extends beyond the regions that blocks read
    reach/BLOCK             largest radius of the other Gaussians along each axis
    decided/HOME            candidates that are seeds or undecided after the last round
    rows/BLOCK              for each seed with voxels in BLOCK: id, voxels within its Gaussian, voxels not yet taken

A place is the position that a voxel points to. Candidates are processed in the block of their place, so the distance that a
voxel points does not matter. A candidate's id is its own flat index in the image, plus one. docs/instances.md proves that
the result is exact.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise.grid import BlockGrid, Region
from im2im_zoo.instances.blockwise.numbers import number_objects
from im2im_zoo.instances.blockwise.sample import Sample, arguments, sizes
from im2im_zoo.instances.blockwise.seeds import SEED, TAKEN, UNDECIDED, Places, decide, radii
from im2im_zoo.instances.blockwise.steps import Step
from im2im_zoo.instances.methods import embedseg

Table = NDArray[np.void]
# Bytes per candidate for deciding.
_EACH = 200


def steps(sample: Sample) -> Iterator[Step]:
    """Yield the steps up to the numbers of all objects; see `blockwise.run`."""
    blocks = range(len(sample.grid))
    yield Step("candidates", blocks, find_candidates)
    sample.save("halo", 0, _halo(sample))
    yield Step("round0", blocks, decide_first)
    turn = 0
    while undecided := _undecided(sample):
        turn += 1
        yield Step(f"round{turn}", undecided, decide_again)
    yield Step("members", blocks, take_members)
    at_least = max(1, arguments(embedseg.group, sample.code.grouping.kwargs)["min_size"])
    number_objects(sample, "rows", lambda rows: (rows[2] >= at_least) & (2 * rows[2] > rows[1]))


def find_candidates(sample: Sample, number: int) -> None:
    """Save the voxels of a block that may be seeds, by the block of their places."""
    given = arguments(embedseg.group, sample.code.grouping.kwargs)
    grid, region = sample.grid, sample.grid.region(number)
    voxels, places, sigmas, seediness = _points(
        sample, region, max(given["seed_threshold"], given["foreground_threshold"])
    )
    table = np.zeros(len(voxels), _type(len(region)))
    table["voxel"], table["seediness"] = voxels, seediness
    table["place"], table["sigma"] = places.T, sigmas.T
    reach, wide = radii(sigmas), np.zeros(len(voxels), bool)
    for along, most in zip(reach, _most(grid), strict=True):
        wide |= along > most
    sample.save("wide", number, table[wide])
    sample.save("reach", number, reach[:, ~wide].max(axis=1, initial=0))
    homes = grid.owners(_clipped(places, grid).astype(np.int64))
    order = np.argsort(homes, kind="stable")
    found, begins = np.unique(homes[order], return_index=True)
    for home, begin, end in zip(found, begins, [*begins[1:], len(order)], strict=False):
        rows = order[begin:end]
        sample.save(f"candidates/{home}", number, table[rows])


def decide_first(sample: Sample, number: int) -> None:
    """Decide candidates of a block in the first round."""
    outer = _outer(sample, number)
    tables = [_empty(sample)]
    for home in sample.grid.blocks_in(outer):
        tables += [_inside(t, outer, sample.grid) for t in sample.tables(f"candidates/{home}")]
    tables += [t[~_is_inside(t, outer, sample.grid)] for t in sample.tables("wide")]
    _decide(sample, number, np.concatenate(tables))


def decide_again(sample: Sample, number: int) -> None:
    """Decide candidates of a block in a further round: seeds, undecided, or taken, which are removed."""
    outer = _outer(sample, number)
    near = [_inside(sample.load("decided", n), outer, sample.grid) for n in sample.grid.blocks_in(outer)]
    far = sample.load("far", 0)
    _decide(sample, number, np.concatenate([*near, far[~_is_inside(far, outer, sample.grid)]]))


def take_members(sample: Sample, number: int) -> None:
    """Assign each voxel of a block to the first seed that takes it."""
    given = arguments(embedseg.group, sample.code.grouping.kwargs)
    grid, region = sample.grid, sample.grid.region(number)
    voxels, places, _, _ = _points(sample, region, given["foreground_threshold"])
    seeds = _seeds_near(sample, places)
    near = Places.of(places, grid.shape)
    owner, counts = np.zeros(len(voxels), np.int32), np.zeros((2, len(seeds)), np.int64)
    for at, (place, sigma) in enumerate(zip(seeds["place"], seeds["sigma"], strict=True)):
        members = near.within(place, sigma)
        fresh = members[owner[members] == 0]
        owner[fresh] = at + 1
        counts[:, at] = len(members), len(fresh)
    labels = np.zeros(sizes(region), np.int32)
    starts = np.array([s.start for s in region])[:, None]
    labels[tuple(grid.coordinates(voxels) - starts)] = owner
    ids = seeds["voxel"] + 1
    order = np.argsort(ids)
    rows = np.concatenate([ids[None], counts])[:, order]
    sample.save("rows", number, rows[:, rows[1] > 0])
    sample.keep_local(number, labels, ids)


def _points(
    sample: Sample, region: Region, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the voxels of a region above a threshold, as in `embedseg.group`: flat indices, places, sigmas, seediness."""
    maps = sample.read(region)
    axes = len(region)
    flat = maps.reshape(len(maps), -1)
    local = np.flatnonzero(flat[-1] > threshold)
    local = local[np.isfinite(flat[:, local]).all(0)]
    voxels = sample.grid.flat(region, local)
    places = flat[:axes, local] + sample.grid.coordinates(voxels).astype(np.float32)
    return voxels, places, flat[axes:-1, local], flat[-1, local]


def _decide(sample: Sample, number: int, points: Table) -> None:
    """Decide the candidates with places in a block as far as possible, and save them.

    Raises:
        PlanError: the candidates do not fit the memory.
    """
    sample.check_room(_EACH * len(points), f"{len(points)} candidates for seeds that point into one block")
    grid, region = sample.grid, sample.grid.region(number)
    points = points[np.lexsort((points["voxel"], -points["seediness"]))]
    inner = grid.grow(region, [int(m) // 2 for m in sample.load("halo", 0)])
    places, sigmas = points["place"].T.copy(), points["sigma"].T.copy()
    states = decide(places, sigmas, points["state"] == SEED, _is_inside(points, inner, grid), grid.shape)
    points["state"] = states
    ours = grid.owners(_clipped(places, grid).astype(np.int64)) == number
    sample.save("decided", number, points[ours & (states != TAKEN)], durable=True)


def _halo(sample: Sample) -> NDArray[np.int64]:
    """Return the margin of a block, in voxels, that candidates are read from: twice the largest radius."""
    reach = np.max(list(sample.tables("reach")), axis=0)
    return np.asarray(2 * (np.ceil(reach).astype(np.int64) + 1))


def _most(grid: BlockGrid) -> list[float]:
    """Return the largest radius of a Gaussian along each axis for which a candidate is not wide."""
    return [
        np.inf if side >= n else max(1.0, side / 4) for side, n in zip(grid.block, grid.shape, strict=True)
    ]


def _outer(sample: Sample, number: int) -> Region:
    return sample.grid.grow(sample.grid.region(number), [int(m) for m in sample.load("halo", 0)])


def _undecided(sample: Sample) -> list[int]:
    """Return the blocks with undecided candidates, and save the wide candidates for the next round."""
    found, far, most = [], [_empty(sample)], np.array(_most(sample.grid))
    for number in range(len(sample.grid)):
        table = sample.load("decided", number)
        if (table["state"] == UNDECIDED).any():
            found.append(number)
        far.append(table[(radii(table["sigma"]) > most).any(axis=1)])
    sample.save("far", 0, np.concatenate(far))
    return found


def _seeds_near(sample: Sample, places: NDArray[np.float32]) -> Table:
    """Return the seeds whose Gaussians may contain one of these places, in descending order of seediness."""
    if not places.shape[1]:
        return _empty(sample)
    grid, halo = sample.grid, sample.load("halo", 0)
    clipped = _clipped(places, grid)
    low, high = clipped.min(axis=1), clipped.max(axis=1)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    tables = [sample.load("decided", n) for n in grid.blocks_in(grid.grow(box, [int(m) for m in halo]))]
    far = sample.load("far", 0)
    seeds = np.concatenate([*tables, far])
    seeds = seeds[np.unique(seeds["voxel"], return_index=True)[1]]
    centres, reach = _clipped(seeds["place"].T, grid), radii(seeds["sigma"].T)
    meets = ((centres + reach >= low[:, None]) & (centres - reach <= high[:, None])).all(axis=0)
    seeds = seeds[meets]
    return seeds[np.lexsort((seeds["voxel"], -seeds["seediness"]))]  # type: ignore[no-any-return]


def _clipped(places: NDArray[np.float32], grid: BlockGrid) -> NDArray[np.float64]:
    """Clip places to the image, which does not increase the distance between any two of them."""
    return np.clip(places.astype(np.float64), 0, np.array(grid.shape)[:, None] - 1)


def _is_inside(table: Table, region: Region, grid: BlockGrid) -> NDArray[np.bool_]:
    at = np.floor(_clipped(table["place"].T, grid))
    spans = [(along >= s.start) & (along < s.stop) for along, s in zip(at, region, strict=True)]
    return np.asarray(np.logical_and.reduce(spans))


def _inside(table: Table, region: Region, grid: BlockGrid) -> Table:
    return table[_is_inside(table, region, grid)]


def _type(axes: int) -> np.dtype[np.void]:
    along = (np.float32, (axes,))
    return np.dtype(
        [
            ("voxel", np.int64),
            ("seediness", np.float32),
            ("state", np.uint8),
            ("place", *along),
            ("sigma", *along),
        ]
    )


def _empty(sample: Sample) -> Table:
    return np.zeros(0, _type(len(sample.space)))
