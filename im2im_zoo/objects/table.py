"""Table of the objects of a label image, by sums over its parts; the parts do not change the result.

The measurements are those of scikit-image's `regionprops_table` of the whole image (`label`, `num_pixels`, `centroid`, `bbox`,
`intensity_mean`), which needs all of it in memory: sums, smallest and largest positions of parts are merged instead.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.contingency import as_labels, parts_of
from im2im_zoo.images import pixel_size_um

if TYPE_CHECKING:
    import pandas as pd

# Voxels of the labels, and of a channel of the image, that are in memory at once; a pass takes about 100 bytes for each of them.
PART = 1 << 20
# Rows of parts that are kept before the rows of the same objects are merged.
_MAX_UNMERGED = 1 << 20


def object_table(
    labels: xr.DataArray, image: xr.DataArray | None = None, *, part: int = PART
) -> "pd.DataFrame":
    """Measure the objects of a label image, one a row, sorted by id.

    Memory: about 100 bytes for each voxel of `part`, and 200 bytes for each object.

    Args:
        labels: whole numbers, 0 = background, lazy or not; each position of axes other than z, y, x has objects of its own.
        image: image that the objects are in, with the same space axes, for mean intensities of each channel.
        part: number of voxels that are read at once.

    Returns:
        The columns `time`, `index`, `channel` (positions from 0, where the labels have these axes), `id`; `centroid_A_um` (from the
        image's origin, if the pixel size is known) and `centroid_A` (voxels; 0 is the centre of the first); `area` or `volume` in
        voxels and `area_um2` or `volume_um3`; `bbox_A_start` and `bbox_A_stop` (voxels, half open), of each space axis A;
        `touches_border`, whether the object has a voxel at the first or last position of an axis; `mean` or `mean_NAME`.

    Raises:
        EvaluationError: labels that are not whole numbers, without y and x, or of other sizes than the image.
    """
    import pandas as pd

    space = _space_axes(labels)
    outer = [str(a) for a in labels.dims if a not in space]
    channels = _channels(labels, image, space)
    tables = []
    for place in itertools.product(*(range(labels.sizes[a]) for a in outer)):
        where = dict(zip(outer, place, strict=True))
        one = labels.isel(where).transpose(*space)
        of_channels = {name: _select_place(channel, where, space) for name, channel in channels.items()}
        rows = _Rows(len(space), len(channels))
        for region in parts_of((one, *of_channels.values()), part):
            rows.add(region, one, of_channels)
        columns = _columns(rows.table(), one, list(of_channels))
        tables.append(
            pd.DataFrame({**{a: np.full(len(columns["id"]), n) for a, n in where.items()}, **columns})
        )
    return pd.concat(tables, ignore_index=True)


def _space_axes(labels: xr.DataArray) -> tuple[str, ...]:
    space = tuple(a for a in SPACE if a in labels.dims)
    if not {"y", "x"} <= set(space):
        raise EvaluationError(
            f"the labels have the axes {', '.join(map(str, labels.dims))}; objects are measured along (z,) y, x"
        )
    return space


def _channels(
    labels: xr.DataArray, image: xr.DataArray | None, space: Sequence[str]
) -> dict[str, xr.DataArray]:
    """Return the channels of the image, by the names of their columns."""
    if image is None:
        return {}
    lost = [a for a in image.dims if a not in labels.dims and a != "channel" and image.sizes[a] > 1]
    sizes = {a: image.sizes.get(a, 1) for a in space}
    wrong = [
        str(a)
        for a in image.dims
        if a in labels.dims and image.sizes[a] != labels.sizes[a] and a != "channel"
    ]
    if lost or wrong or sizes != {a: labels.sizes[a] for a in space}:
        text = [" ".join(f"{a}={n}" for a, n in i.sizes.items()) for i in (labels, image)]
        raise EvaluationError(
            f"the labels ({text[0]}) and the image ({text[1]}) must have the same sizes: give the image that the labels were made of"
        )
    if "channel" not in image.dims or "channel" in labels.dims:
        return {"mean": image}
    names = (
        [str(n) for n in image["channel"].values]
        if "channel" in image.coords
        else range(image.sizes["channel"])
    )
    return {f"mean_{name}": image.isel(channel=n) for n, name in enumerate(names)}


def _select_place(channel: xr.DataArray, where: Mapping[str, int], space: Sequence[str]) -> xr.DataArray:
    """Return a channel at a place along other axes, with only the space axes, in order."""
    found = channel.isel({a: n for a, n in where.items() if a in channel.dims})
    found = found.isel({a: 0 for a in found.dims if a not in space})
    missing = [a for a in space if a not in found.dims]
    return (found.expand_dims(missing) if missing else found).transpose(*space)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Sums of each object: `ids` (n,), `counts` (n,), `sums` (n, axes + channels), `low`, `high` (n, axes), the latter inclusive."""

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


class _Rows:
    """Rows of objects, one for each part that an object is in, merged when there are many."""

    def __init__(self, axes: int, channels: int) -> None:
        none = np.zeros((0, axes), np.int64)
        empty = np.zeros(0, np.int64)
        self._parts = [_Table(empty, empty, np.zeros((0, axes + channels)), none, none)]

    def add(
        self, region: Mapping[str, slice], labels: xr.DataArray, channels: Mapping[str, xr.DataArray]
    ) -> None:
        """Count the objects of a region."""
        block = as_labels(labels.isel(region).to_numpy(), "labels")
        at = np.flatnonzero(block)
        if not len(at):
            return
        ids, inverse = _unique_labels(block.reshape(-1)[at])
        starts = [region[str(a)].start for a in labels.dims]
        places = [p + s for p, s in zip(np.unravel_index(at, block.shape), starts, strict=True)]
        values = [c.isel(region).to_numpy().reshape(-1)[at] for c in channels.values()]
        n = len(ids)
        # Sums of positions are whole numbers below 2^53, which float64 holds exactly.
        sums = [np.bincount(inverse, v.astype(np.float64), n) for v in (*places, *values)]
        low = np.full((n, len(places)), np.iinfo(np.int64).max)
        high = np.zeros((n, len(places)), np.int64)
        for k, place in enumerate(places):
            np.minimum.at(low[:, k], inverse, place)
            np.maximum.at(high[:, k], inverse, place)
        self._parts.append(_Table(ids, np.bincount(inverse, minlength=n), np.stack(sums, 1), low, high))
        if sum(len(p.ids) for p in self._parts) > _MAX_UNMERGED:
            self._parts = [self.table()]

    def table(self) -> _Table:
        """Return the sums of all parts, sorted by id."""
        ids = np.concatenate([p.ids for p in self._parts])
        if not len(ids):
            return self._parts[0]
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))

        def merged(name: str, how: np.ufunc) -> NDArray[Any]:
            found: NDArray[Any] = how.reduceat(
                np.concatenate([getattr(p, name) for p in self._parts])[order], starts
            )
            return found

        return _Table(
            ids[order][starts],
            merged("counts", np.add),
            merged("sums", np.add),
            merged("low", np.minimum),
            merged("high", np.maximum),
        )


def _unique_labels(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the distinct labels, sorted, and the number of each; by counting, where they are close merged, as that is faster."""
    least, most = int(labels.min()), int(labels.max())
    if most - least > 4 * len(labels) + (1 << 16):
        ids, inverse = np.unique(labels, return_inverse=True)
        return ids.astype(np.int64), inverse
    shifted = (labels - labels.dtype.type(least)).astype(np.intp)
    there = np.bincount(shifted) > 0
    return np.flatnonzero(there).astype(np.int64) + least, (np.cumsum(there) - 1)[shifted]


def _columns(found: _Table, labels: xr.DataArray, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the columns of one image's objects, by their names."""
    space, spacing = [str(a) for a in labels.dims], pixel_size_um(labels)
    origin = labels.attrs.get("translation_um") or {}
    means = found.sums / np.maximum(found.counts, 1)[:, None]
    columns: dict[str, NDArray[Any]] = {"id": found.ids}
    if all(a in spacing for a in space):
        columns |= {
            f"centroid_{a}_um": float(origin.get(a, 0.0)) + means[:, k] * spacing[a]
            for k, a in enumerate(space)
        }
    columns |= {f"centroid_{a}": means[:, k] for k, a in enumerate(space)}
    size, unit = ("volume", "um3") if "z" in space else ("area", "um2")
    columns[size] = found.counts
    if all(a in spacing for a in space):
        columns[f"{size}_{unit}"] = found.counts * float(np.prod([spacing[a] for a in space]))
    columns |= {f"bbox_{a}_start": found.low[:, k] for k, a in enumerate(space)}
    columns |= {f"bbox_{a}_stop": found.high[:, k] + 1 for k, a in enumerate(space)}
    last = np.array([labels.sizes[a] - 1 for a in space])
    # Along an axis of one voxel, everything would touch.
    ends = ((found.low == 0) | (found.high == last)) & (last > 0)
    columns["touches_border"] = ends.any(axis=1)
    return columns | {name: means[:, len(space) + k] for k, name in enumerate(names)}


def boxes(table: "pd.DataFrame", space: Sequence[str]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Yield the id and the bounding box of each row."""
    spans = [zip(table[f"bbox_{a}_start"], table[f"bbox_{a}_stop"], strict=True) for a in space]
    for row in zip(table["id"], *spans, strict=True):
        yield int(row[0]), tuple(slice(int(a), int(b)) for a, b in row[1:])
