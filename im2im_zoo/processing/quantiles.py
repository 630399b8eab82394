"""Exact quantiles of whole lazy images, in bounded memory.

An order-preserving map takes every dtype to unsigned integers, whose digits of 16 bits are counted from the
top: one pass over the image for 8 and 16 bits, two for 32, four for 64. What fits in one block is sorted there
instead. Both are exact, so the result does not depend on how the image is chunked or walked.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.processing.blocks import block_shape, read, regions, walk, working_voxels
from im2im_zoo.processing.checkpoint import NOT_KEPT, Checkpoint, State
from im2im_zoo.processing.sources import Source, check_finite, dtype_after, kept_sizes, over_kept, whole_sizes

QuantileMethod = Literal["linear", "inverted_cdf"]

_DIGIT = 16


def quantiles(
    sources: Sequence[Source],
    reduced: Sequence[str],
    fractions: Sequence[float],
    *,
    method: QuantileMethod,
    block_bytes: int,
    checkpoint: Checkpoint = NOT_KEPT,
) -> tuple[xr.DataArray, ...]:
    """Return the quantiles at `fractions` (0 to 1) over the `reduced` axes of all sources together, as numpy's.

    Args:
        sources, reduced: as in `mean_and_std`.
        fractions: of the quantiles.
        method: numpy's name of it; see `_ranks`.
        block_bytes: bound on the memory.
        checkpoint: stores the pass over a single source; a pass over several is not stored.

    Returns:
        One float64 array per fraction, over the axes that are not reduced, with integer coordinates.

    Raises:
        ProcessingError: as `mean_and_std`.
    """
    kept = kept_sizes(sources, reduced)
    count = sum(math.prod(s.image.sizes[a] for a in reduced) for s in sources)
    wanted = [_ranks(count, q, method) for q in fractions]
    ranks = sorted({rank for low, high, _ in wanted for rank in (low, high)})
    dtype = np.result_type(*(dtype_after(s) for s in sources))
    in_memory = count <= working_voxels(block_bytes)
    # Streaming holds a table of counts for every value of the statistic and every rank.
    tables = block_bytes // 4 // (8 * len(ranks) << min(_DIGIT, 8 * dtype.itemsize))
    cells = max(1, working_voxels(block_bytes) // count if in_memory else tables)
    whole = {a: kept[a] for s in sources for a in s.whole_axes if a in kept}
    found = np.empty((*kept.values(), len(ranks)), dtype)
    groups = list(regions(kept, block_shape(kept, cells, grain=whole)))
    if in_memory:
        for group in groups:
            values = _sorted_in_memory(sources, group, reduced, ranks, dtype)
            found[tuple(group.values())] = values.reshape(found[tuple(group.values())].shape)
    else:
        kept_at = checkpoint if len(sources) == 1 else NOT_KEPT
        _radix_select(sources, groups, reduced, ranks, found, block_bytes, kept_at)
    at = {rank: found[..., i] for i, rank in enumerate(ranks)}
    return tuple(over_kept(kept, sources, _between(at[low], at[high], t)) for low, high, t in wanted)


def _ranks(count: int, fraction: float, method: QuantileMethod) -> tuple[int, int, float]:
    """Return the two order statistics (from 0) and the weight of the second, by numpy's definitions."""
    if method == "inverted_cdf":
        rank = max(0, math.ceil(np.float64(count) * fraction - 1))
        return rank, rank, 0.0
    index = float(np.float64(count - 1) * fraction)
    low = math.floor(index)
    return low, min(low + 1, count - 1), index - low


def _between(low: NDArray[Any], high: NDArray[Any], t: float) -> NDArray[Any]:
    """Interpolate linearly as numpy does, to the last bit, but for integers whose difference would overflow."""
    if t == 0:
        return low
    if low.dtype.kind in "biu":
        step = np.asarray(high.astype(object) - low.astype(object), dtype=np.float64)
        low, high = low.astype(np.float64), high.astype(np.float64)
    else:
        step = high - low
    # An array of one weight, as numpy has it: a bare float would keep float32 in float32.
    weight = np.float64(t)
    result: NDArray[Any] = high - step * (1 - weight) if t >= 0.5 else low + step * weight
    return result


def _rows(
    values: xr.DataArray, kept: Sequence[str], reduced: Sequence[str], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return (values of the statistic, voxels), C-contiguous."""
    ordered = values.transpose(*kept, *reduced).to_numpy().astype(dtype, order="C", copy=False)
    return ordered.reshape(math.prod(values.sizes[a] for a in kept), -1)


def _sorted_in_memory(
    sources: Sequence[Source],
    group: Mapping[str, slice],
    reduced: Sequence[str],
    ranks: Sequence[int],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Return the values at `ranks` of each cell of `group`, which fits in a block: (cells, ranks)."""
    parts = []
    for source in sources:
        values = _rows(source.transform(read(source.image, group)), tuple(group), reduced, dtype)
        check_finite(source, dtype.kind != "f" or np.isfinite(values).all())
        parts.append(values)
    together = np.concatenate(parts, axis=1)
    return np.partition(together, ranks, axis=1)[:, list(ranks)]


def _radix_select(
    sources: Sequence[Source],
    groups: Sequence[Mapping[str, slice]],
    reduced: Sequence[str],
    ranks: Sequence[int],
    found: NDArray[Any],
    block_bytes: int,
    checkpoint: Checkpoint,
) -> None:
    """Write the values at `ranks` of all cells into `found`, by counting digits from the top: one pass over the image a digit and group of cells."""
    dtype, first, digits = found.dtype, 0, None
    if (known := checkpoint.load()) is not None:
        first, found[...], digits = int(known["group"]), known["found"], _Digits.from_state(known, dtype)
    for number, group in enumerate(groups[first:], first):
        if digits is None:
            cells = math.prod(g.stop - g.start for g in group.values())
            digits = _Digits.start(ranks, cells, dtype)
        while digits.shift >= 0:
            for pairs, voxels in _keys(sources, group, reduced, dtype, block_bytes, int(digits.done[0])):
                for cell, keys in pairs:
                    digits.count(cell, keys)
                digits.done += (1, voxels)
                checkpoint.save(partial(digits.state, number, found))
            digits.descend()
        at = tuple(group.values())
        found[at] = _from_key(digits.heads.astype(f"u{dtype.itemsize}"), dtype).reshape(found[at].shape)
        digits = None


@dataclass(slots=True)
class _Digits:
    """The known leading digits of the values at some ranks of some cells.

    Attributes:
        shift: bits below the digit that is being counted.
        width: bits of a digit.
        top: whether it is the first.
        heads: (cells, ranks), the digits before it.
        left: (cells, ranks), the rank among the values with that head.
        tables: of each cell, how often each digit follows each head.
        done: pieces that are counted of this pass, and voxels of this and those before.
    """

    shift: int
    width: int
    top: bool
    heads: NDArray[np.uint64]
    left: NDArray[np.int64]
    tables: list[dict[int, NDArray[np.int64]]]
    done: NDArray[np.int64]

    @classmethod
    def start(cls, ranks: Sequence[int], cells: int, dtype: np.dtype[Any]) -> Self:
        bits = 8 * dtype.itemsize
        width = min(_DIGIT, bits)
        heads = np.zeros((cells, len(ranks)), np.uint64)
        left = np.tile(np.array(ranks, np.int64), (cells, 1))
        return cls(bits - width, width, True, heads, left, _tables(heads, width), np.zeros(2, np.int64))

    @classmethod
    def from_state(cls, state: State, dtype: np.dtype[Any]) -> Self:
        """Return the digits of a stored `state`."""
        bits = 8 * dtype.itemsize
        width, shift = min(_DIGIT, bits), int(state["shift"])
        tables, at = _tables(state["heads"], width), 0
        for row in tables:
            for head in row:
                row[head] = state["tables"][at].copy()
                at += 1
        return cls(
            shift, width, shift + width == bits, state["heads"], state["left"], tables, state["done"].copy()
        )

    def state(self, group: int, found: NDArray[Any]) -> State:
        """Return what `_radix_select` needs to resume, in this group of cells, with the results of the others."""
        tables = np.stack([table for row in self.tables for table in row.values()])
        return {
            "shift": np.array(self.shift),
            "heads": self.heads,
            "left": self.left,
            "tables": tables,
            "done": self.done,
            "group": np.array(group),
            "found": found,
        }

    def count(self, cell: int, keys: NDArray[Any]) -> None:
        """Count the digits of some values of a cell."""
        for head, table in self.tables[cell].items():
            below = keys if self.top else keys[keys >> (self.shift + self.width) == head]
            digits = ((below >> self.shift) & ((1 << self.width) - 1)).astype(np.intp)
            table += np.bincount(digits, minlength=1 << self.width)

    def descend(self) -> None:
        """Set the digit at each rank, after all values are counted, and start the next digit."""
        for cell, row in enumerate(self.tables):
            sums = {head: np.cumsum(table) for head, table in row.items()}
            for i, head in enumerate(self.heads[cell].tolist()):
                digit = int(np.searchsorted(sums[head], self.left[cell, i], side="right"))
                self.left[cell, i] -= int(sums[head][digit - 1]) if digit else 0
                self.heads[cell, i] = head << self.width | digit
        self.shift, self.top = self.shift - self.width, False
        self.done[0] = 0
        if self.shift >= 0:
            self.tables = _tables(self.heads, self.width)


def _tables(heads: NDArray[np.uint64], width: int) -> list[dict[int, NDArray[np.int64]]]:
    """Return empty tables of counts of each cell, one for each head."""
    return [{head: np.zeros(1 << width, np.int64) for head in sorted(set(row))} for row in heads.tolist()]


def _keys(
    sources: Sequence[Source],
    group: Mapping[str, slice],
    reduced: Sequence[str],
    dtype: np.dtype[Any],
    block_bytes: int,
    skip: int,
) -> Iterator[tuple[list[tuple[int, NDArray[Any]]], int]]:
    """Yield the keys of all voxels of the group, as [(cell, keys of some of its voxels)] and the voxels of a piece.

    Args:
        skip: number of pieces of the first source that are left out.
    """
    numbers = np.arange(math.prod(g.stop - g.start for g in group.values()))
    numbers = numbers.reshape(tuple(g.stop - g.start for g in group.values()))
    for source in sources:
        pieces = walk(
            source.image, block_bytes=block_bytes, grain=whole_sizes(source), within=group, skip=skip
        )
        for start, piece in pieces:
            values = source.transform(piece)
            rows = _rows(values, tuple(group), reduced, dtype)
            check_finite(source, dtype.kind != "f" or np.isfinite(rows).all())
            part = tuple(slice(start[a], start[a] + values.sizes[a]) for a in group)
            yield list(zip(numbers[part].reshape(-1).tolist(), _to_key(rows), strict=True)), piece.size


def _to_key(values: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers in the order of the values (IEEE 754: flip all bits of negatives, else the sign)."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "u":
        return values
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits, sign = values.view(unsigned), unsigned.type(1 << (8 * unsigned.itemsize - 1))
    keys: NDArray[Any] = bits ^ sign
    return keys if values.dtype.kind == "i" else np.where(bits & sign, ~bits, keys)


def _from_key(keys: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "bu":
        return keys.astype(dtype)
    sign = keys.dtype.type(1 << (8 * keys.dtype.itemsize - 1))
    bits = keys ^ sign if dtype.kind == "i" else np.where(keys & sign, keys ^ sign, ~keys)
    values: NDArray[Any] = bits.view(dtype)
    return values
