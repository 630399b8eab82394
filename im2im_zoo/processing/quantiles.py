"""Exact quantiles of whole lazy images, in bounded memory.

An order-preserving map takes every dtype to unsigned integers, whose digits of 16 bits are counted from the
top: one pass over the image for 8 and 16 bits, two for 32, four for 64. What fits in one block is sorted there
instead. Both are exact, so the result does not depend on how the image is chunked or walked.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.processing.blocks import block_shape, read, regions, walk, working_voxels
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
) -> tuple[xr.DataArray, ...]:
    """The quantiles at `fractions` (0 to 1) over the `reduced` axes of all sources together, as numpy's.

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
    select = _sorted_in_memory if in_memory else _radix_select
    for group in regions(kept, block_shape(kept, cells, grain=whole)):
        values = select(sources, group, reduced, ranks, dtype, block_bytes)
        found[tuple(group.values())] = values.reshape(*(g.stop - g.start for g in group.values()), -1)
    at = {rank: found[..., i] for i, rank in enumerate(ranks)}
    return tuple(over_kept(kept, sources, _between(at[low], at[high], t)) for low, high, t in wanted)


def _ranks(count: int, fraction: float, method: QuantileMethod) -> tuple[int, int, float]:
    """The two order statistics (from 0) and the weight of the second, by numpy's definitions."""
    if method == "inverted_cdf":
        rank = max(0, math.ceil(np.float64(count) * fraction - 1))
        return rank, rank, 0.0
    index = float(np.float64(count - 1) * fraction)
    low = math.floor(index)
    return low, min(low + 1, count - 1), index - low


def _between(low: NDArray[Any], high: NDArray[Any], t: float) -> NDArray[Any]:
    """numpy's linear interpolation, to the last bit, but for integers whose difference would overflow."""
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
    """(values of the statistic, voxels), C-contiguous."""
    ordered = values.transpose(*kept, *reduced).to_numpy().astype(dtype, order="C", copy=False)
    return ordered.reshape(math.prod(values.sizes[a] for a in kept), -1)


def _sorted_in_memory(
    sources: Sequence[Source],
    group: Mapping[str, slice],
    reduced: Sequence[str],
    ranks: Sequence[int],
    dtype: np.dtype[Any],
    block_bytes: int,
) -> NDArray[Any]:
    """The values at `ranks` of each cell of `group`, which fits in a block: (cells, ranks)."""
    parts = []
    for source in sources:
        values = _rows(source.transform(read(source.image, group)), tuple(group), reduced, dtype)
        check_finite(source, dtype.kind != "f" or np.isfinite(values).all())
        parts.append(values)
    together = np.concatenate(parts, axis=1)
    return np.partition(together, ranks, axis=1)[:, list(ranks)]


def _radix_select(
    sources: Sequence[Source],
    group: Mapping[str, slice],
    reduced: Sequence[str],
    ranks: Sequence[int],
    dtype: np.dtype[Any],
    block_bytes: int,
) -> NDArray[Any]:
    """The same by counting digits from the top, one pass over the image a digit."""
    bits = 8 * dtype.itemsize
    digit = min(_DIGIT, bits)
    cells = math.prod(g.stop - g.start for g in group.values())
    heads = [[0] * len(ranks) for _ in range(cells)]  # the leading digits found so far
    left = [list(ranks) for _ in range(cells)]  # the rank among values with those leading digits
    for shift in range(bits - digit, -1, -digit):
        counts = [{head: np.zeros(1 << digit, dtype=np.int64) for head in set(row)} for row in heads]
        for cell, keys in _keys(sources, group, reduced, dtype, block_bytes):
            for head, table in counts[cell].items():
                below = keys if shift + digit == bits else keys[keys >> (shift + digit) == head]
                found = ((below >> shift) & ((1 << digit) - 1)).astype(np.intp)
                table += np.bincount(found, minlength=1 << digit)
        for cell, row in enumerate(heads):
            sums = {head: np.cumsum(table, out=table) for head, table in counts[cell].items()}
            for i, head in enumerate(row):
                number = int(np.searchsorted(sums[head], left[cell][i], side="right"))
                left[cell][i] -= int(sums[head][number - 1]) if number else 0
                row[i] = head << digit | number
    return _from_key(np.array(heads, dtype=f"u{dtype.itemsize}"), dtype)


def _keys(
    sources: Sequence[Source],
    group: Mapping[str, slice],
    reduced: Sequence[str],
    dtype: np.dtype[Any],
    block_bytes: int,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Keys of all voxels of the group, as (cell, keys of some of its voxels)."""
    numbers = np.arange(math.prod(g.stop - g.start for g in group.values()))
    numbers = numbers.reshape(tuple(g.stop - g.start for g in group.values()))
    for source in sources:
        for start, piece in walk(
            source.image, block_bytes=block_bytes, grain=whole_sizes(source), within=group
        ):
            values = source.transform(piece)
            rows = _rows(values, tuple(group), reduced, dtype)
            check_finite(source, dtype.kind != "f" or np.isfinite(rows).all())
            part = tuple(slice(start[a], start[a] + values.sizes[a]) for a in group)
            yield from zip(numbers[part].reshape(-1).tolist(), _to_key(rows), strict=True)


def _to_key(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers in the order of the values (IEEE 754: flip all bits of negatives, else the sign)."""
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
