"""Decide which candidates near a block are seeds of the greedy selection in the whole image: pure functions of arrays.

Candidates are visited in descending order of seediness; one that is not yet taken is a seed and takes all candidates with
places within its Gaussian. A block only knows the candidates near it. A candidate is therefore a seed, taken, or undecided,
and an undecided candidate leaves all undecided that it could take.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

# As in methods/embedseg.py, whose results must be bit-identical.
HALF = float(np.log(2))
SMALLEST_SIGMA = np.float32(1e-6)
# Side of the boxes in voxels, and the number of boxes that is always allowed; more are merged into larger ones.
_BOX, _MANY = 8, 2**16
_PART = 4096
TAKEN, SEED, UNDECIDED = 0, 1, 2


def radii(sigmas: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the radii along each axis within which Gaussians exceed one half, slightly enlarged against rounding."""
    return np.asarray(np.maximum(sigmas, SMALLEST_SIGMA) * np.float64(np.sqrt(2 * HALF) * 1.001))


@dataclass(frozen=True, slots=True)
class Places:
    """Points sorted into boxes, to find those near a point quickly.

    Attributes:
        places: (axis, n) of the points.
        side: of the boxes, in voxels.
        first: index of the first box along each axis.
        counts: number of boxes along each axis.
        boxes: flat box index of each point.
        order: indices of the points, sorted by box.
        starts: start of each box in `order`.
    """

    places: NDArray[np.float32]
    side: int
    first: NDArray[np.int64]
    counts: tuple[int, ...]
    boxes: NDArray[np.intp]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, places: NDArray[np.float32], shape: tuple[int, ...]) -> "Places":
        """Sort points into boxes; points outside an image of that shape are in the boxes at its border."""
        most = np.array(shape)[:, None] - 1
        inside = np.clip(places, 0, most).astype(np.float64)
        low, high = inside.min(axis=1, initial=most.max()), inside.max(axis=1, initial=0)
        side = _BOX
        while np.prod((high - low) // side + 2) > max(4 * places.shape[1], _MANY):
            side *= 2
        first = np.floor(low / side).astype(np.int64)
        counts = tuple(int(n) for n in np.maximum(np.floor(high / side).astype(np.int64) - first, 0) + 1)
        at = np.floor(inside / side).astype(np.int64) - first[:, None]
        boxes = np.asarray(np.ravel_multi_index(tuple(at), counts), np.intp)
        order = np.argsort(boxes, kind="stable")
        tally = np.bincount(boxes, minlength=int(np.prod(counts)))
        return cls(places, side, first, counts, boxes, order, np.concatenate([[0], np.cumsum(tally)]))

    def within(self, centre: NDArray[np.float32], sigma: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the indices of the points at which a Gaussian exceeds one half."""
        reach = radii(sigma)
        low, high = self.span(centre - reach, centre + reach)
        rows = product(*(range(a, b + 1) for a, b in zip(low[:-1], high[:-1], strict=True)))
        begins = [int(np.ravel_multi_index((*row, low[-1]), self.counts)) for row in rows]
        width = int(high[-1] - low[-1]) + 1
        near = np.concatenate([self.order[self.starts[b] : self.starts[b + width]] for b in begins])
        with np.errstate(over="ignore"):  # an infinite distance is not within
            scaled = (self.places[:, near] - centre[:, None]) / np.maximum(sigma, SMALLEST_SIGMA)[:, None]
            return np.asarray(near[(scaled * scaled).sum(0) < 2 * HALF])

    def span(
        self, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and last box along each axis between two places, clipped to the outermost boxes."""
        most = np.array(self.counts) - 1
        first = np.floor(np.clip(low, -1e15, 1e15) / self.side).astype(np.int64) - self.first
        last = np.floor(np.clip(high, -1e15, 1e15) / self.side).astype(np.int64) - self.first
        return np.clip(first, 0, most), np.clip(last, 0, most)


def decide(
    places: NDArray[np.float32],
    sigmas: NDArray[np.float32],
    known: NDArray[np.bool_],
    complete: NDArray[np.bool_],
    shape: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Return TAKEN, SEED or UNDECIDED for each candidate.

    Args:
        places, sigmas: (axis, n) of the candidates, in descending order of seediness.
        known: whether a candidate is known to be a seed.
        complete: whether all candidates that could take a candidate are given or known to be taken.
        shape: of the image.
    """
    near = Places.of(places, shape)
    left = ~known
    for seed in np.flatnonzero(known):
        members = near.within(places[:, seed], sigmas[:, seed])
        left[members[members > seed]] = False
    unsure = _UndecidedBoxes.of(near, sigmas)
    state = np.where(known, SEED, TAKEN).astype(np.uint8)
    queue = np.flatnonzero(left)
    for start in range(0, len(queue), _PART):
        part = queue[start : start + _PART]
        while True:
            part = part[left[part] & ~unsure.silent[near.boxes[part]]]
            if not len(part):
                break
            one, part = int(part[0]), part[1:]
            if complete[one] and not unsure.blocked.flat[near.boxes[one]]:
                members = near.within(places[:, one], sigmas[:, one])
                left[members[members > one]] = False
                left[one] = False
                state[one] = SEED
            else:
                unsure.spread(int(near.boxes[one]))
    state[left & ~known] = UNDECIDED
    return state


@dataclass(frozen=True, slots=True)
class _UndecidedBoxes:
    """Boxes with undecided candidates, and boxes that such candidates could take from.

    Attributes:
        near: the candidates in boxes.
        silent: flat; whether further candidates of a box are undecided unless a seed takes them.
        blocked: whether no further candidate of a box can be a seed.
        reach: (axis, boxes) largest radius of the candidates of a box.
    """

    near: Places
    silent: NDArray[np.bool_]
    blocked: NDArray[np.bool_]
    reach: NDArray[np.float64]

    @classmethod
    def of(cls, near: Places, sigmas: NDArray[np.float32]) -> "_UndecidedBoxes":
        boxes = int(np.prod(near.counts))
        reach = np.zeros((len(sigmas), boxes))
        for axis, along in enumerate(radii(sigmas)):
            np.maximum.at(reach[axis], near.boxes, along)
        return cls(near, np.zeros(boxes, bool), np.zeros(near.counts, bool), reach)

    def spread(self, box: int) -> None:
        """Mark a box that has an undecided candidate."""
        self.silent[box] = True
        at = np.array(np.unravel_index(box, self.near.counts)) + self.near.first
        reach = self.reach[:, box]
        side = self.near.side
        low, high = self.near.span(at * side - reach, (at + 1) * side + reach)
        self.blocked[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
