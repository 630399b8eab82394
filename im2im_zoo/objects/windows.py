"""Regions of a label image that contain whole objects, to read many objects at once in bounded memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def boxes(table: "pd.DataFrame", space: tuple[str, ...]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Yield the id and the bounding box of each row."""
    spans = [zip(table[f"bbox_{a}_start"], table[f"bbox_{a}_stop"], strict=True) for a in space]
    for row in zip(table["id"], *spans, strict=True):
        yield int(row[0]), tuple(slice(int(a), int(b)) for a, b in row[1:])


def windows(
    rows: "pd.DataFrame", space: tuple[str, ...], side: int
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.int64]]]:
    """Yield regions that contain whole objects, and their sorted ids; objects that begin in one cell are read together.

    Args:
        rows: of the table, with `id` and bounding boxes.
        space: axes of the boxes.
        side: voxels of a cell along y and x; along z it has 64.
    """
    cell = tuple(side if a != "z" else 64 for a in space)
    together: dict[tuple[int, ...], list[tuple[int, tuple[slice, ...]]]] = {}
    for label, box in boxes(rows, space):
        large = any(b.stop - b.start > c for b, c in zip(box, cell, strict=True))
        key = (-1, label) if large else tuple(b.start // c for b, c in zip(box, cell, strict=True))
        together.setdefault(key, []).append((label, box))
    for _, members in sorted(together.items()):
        spans = list(zip(*(box for _, box in members), strict=True))
        region = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in spans)
        yield region, np.array(sorted(label for label, _ in members), np.int64)
