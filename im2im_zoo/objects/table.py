"""Table of the objects of a label image, by sums over its parts; the parts do not change the result.

The measurements are those of scikit-image's `regionprops_table` of the whole image (`label`, `num_pixels`, `centroid`, `bbox`,
`axis_major_length`, `axis_minor_length`, `eccentricity`, `orientation`, `intensity_mean`, `intensity_max`), which needs all of it in memory: sums, smallest and largest positions of parts are merged instead.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.contingency import as_labels, overlaps_of, parts_of
from im2im_zoo.images import pixel_size_um
from im2im_zoo.objects.shape import MOST_VOXELS, measure_shapes

if TYPE_CHECKING:
    import pandas as pd

# Voxels of the labels, and of a channel of the image, that are in memory at once; a pass takes about 100 bytes for each of them.
PART = 1 << 20
Measure = Literal["basic", "all"]
# Rows of parts that are kept before the rows of the same objects are merged.
_MAX_UNMERGED = 1 << 20


def object_table(
    labels: xr.DataArray,
    image: xr.DataArray | None = None,
    *,
    part: int = PART,
    measure: Measure = "basic",
    exclude_border: bool = False,
    parents: xr.DataArray | None = None,
    most_voxels: int = MOST_VOXELS,
) -> "pd.DataFrame":
    """Measure the objects of a label image, one a row, sorted by id.

    Memory: about 100 bytes for each voxel of `part`, and 300 bytes for each object; with `all`, also 50 bytes for each voxel of a
    window of 1024 x 1024 pixels (and 64 planes), or of the largest object that is measured.

    Args:
        labels: whole numbers, 0 = background, lazy or not; each position of axes other than z, y, x has objects of its own.
        image: image that the objects are in, with the same space axes, for the intensities of each channel. Where the labels state no
            pixel size, that of the image is used.
        part: number of voxels that are read at once.
        measure: `basic`, or `all` with the measurements that need the whole outline, which take a millisecond an object.
        exclude_border: leave out objects at the border of the image.
        parents: label image of the same sizes, such as the cells that organelles are in.
        most_voxels: objects whose bounding box has more voxels have no perimeter, surface and solidity.

    Returns:
        The columns `time`, `index`, `channel` (positions from 0, where the labels have these axes), `id`; `centroid_A_um` (from the
        image's origin, if the pixel size is known) and `centroid_A` (voxels; 0 is the centre of the first); `area` or `volume` in
        voxels and `area_um2` or `volume_um3`; `bbox_A_start` and `bbox_A_stop` (voxels, half open), of each space axis A;
        `touches_border`, whether the object has a voxel at the first or last position of an axis.

        Where the unit is um, or px if no pixel size is known: `length_UNIT` and `width_UNIT` (major and minor axis of the ellipse or
        ellipsoid with the same second moments: 4 sqrt(l) of the largest and smallest eigenvalue l of the covariance of the voxels'
        positions, sqrt(20 l) in a volume); in a plane `eccentricity` (sqrt(1 - smallest / largest l)) and `orientation_deg` (of the
        major axis from the y axis, -90 to 90). With `all` those of `measure_shapes`.

        `mean`, `max` and `integrated` (the sum), or `mean_NAME` and so on of each channel; `parent`, the id of the parent that has
        most of the object's voxels (of equal ones the smallest), 0 for none.

    Raises:
        EvaluationError: labels that are not whole numbers, without y and x, or of other sizes than the image or the parents.

    Example:
        >>> import numpy as np, xarray as xr
        >>> labels = xr.DataArray(np.repeat([[0, 1, 1]], 4, axis=0), dims=("y", "x"))
        >>> object_table(labels)[["id", "area", "length_px"]].round(2).to_numpy().tolist()
        [[1.0, 8.0, 4.47]]
    """
    import pandas as pd

    space = _space_axes(labels)
    outer = [str(a) for a in labels.dims if a not in space]
    channels = _channels(labels, image, space)
    spacing = pixel_sizes(labels, image)
    _check_parents(labels, parents)
    tables = []
    for place in itertools.product(*(range(labels.sizes[a]) for a in outer)):
        where = dict(zip(outer, place, strict=True))
        one = labels.isel(where).transpose(*space)
        of_channels = {name: _select_place(channel, where, space) for name, channel in channels.items()}
        rows = _Rows(len(space), len(channels))
        for region in parts_of((one, *of_channels.values()), part):
            rows.add(region, one, of_channels)
        columns, intensities = _columns(rows.table(), one, list(of_channels), spacing)
        table = pd.DataFrame(columns | intensities)
        if parents is not None:
            table["parent"] = _parents(
                one, _select_place(parents, where, space), table["id"].to_numpy(), part
            )
        if exclude_border:
            table = table[~table["touches_border"]].reset_index(drop=True)
        if measure == "all":
            unit = "um" if spacing else "px"
            sizes = tuple(spacing[a] for a in space) if spacing else (1.0,) * len(space)
            shapes = measure_shapes(one, table, sizes, most=most_voxels)
            at = len(columns)
            for number, (name, values) in enumerate(shapes.items()):
                table.insert(
                    at + number,
                    name + {"perimeter": f"_{unit}", "surface_area": f"_{unit}2"}.get(name, ""),
                    values,
                )
        for number, (axis, position) in enumerate(where.items()):
            table.insert(number, axis, np.full(len(table), position))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def pixel_sizes(labels: xr.DataArray, image: xr.DataArray | None = None) -> dict[str, float]:
    """Return the pixel size along each space axis of the labels, or else of the image; empty if one is unknown."""
    space = _space_axes(labels)
    for source in (labels, image):
        sizes = {} if source is None else pixel_size_um(source)
        if all(a in sizes for a in space):
            return {a: float(sizes[a]) for a in space}
    return {}


def _check_parents(labels: xr.DataArray, parents: xr.DataArray | None) -> None:
    if parents is not None and dict(parents.sizes) != dict(labels.sizes):
        text = [" ".join(f"{a}={n}" for a, n in i.sizes.items()) for i in (labels, parents)]
        raise EvaluationError(
            f"the labels ({text[0]}) and the parents ({text[1]}) must have the same axes and sizes: give labels of the same image"
        )


def _parents(
    labels: xr.DataArray, parents: xr.DataArray, ids: NDArray[np.int64], part: int
) -> NDArray[np.int64]:
    """Return for each id the parent that has most of its voxels, 0 for none."""
    shared = overlaps_of(labels, parents, part=part)
    found = np.zeros(len(ids), np.int64)
    # The largest overlap last; of equal ones, the smallest parent.
    order = np.lexsort((-shared.ids_t[shared.rows], shared.common))
    children = shared.ids_p[shared.columns[order]]
    found[np.searchsorted(ids, children)] = shared.ids_t[shared.rows[order]]
    return found


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
    """Return the channels of the image, by the ends of the names of their columns."""
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
        return {"": image}
    names = (
        [str(n) for n in image["channel"].values]
        if "channel" in image.coords
        else range(image.sizes["channel"])
    )
    return {f"_{name}": image.isel(channel=n) for n, name in enumerate(names)}


def _select_place(channel: xr.DataArray, where: Mapping[str, int], space: Sequence[str]) -> xr.DataArray:
    """Return a channel at a place along other axes, with only the space axes, in order."""
    found = channel.isel({a: n for a, n in where.items() if a in channel.dims})
    found = found.isel({a: 0 for a in found.dims if a not in space})
    missing = [a for a in space if a not in found.dims]
    return (found.expand_dims(missing) if missing else found).transpose(*space)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Sums of each object.

    `ids` (n,), `counts` (n,), `sums` (n, axes + channels), `low`, `high` (n, axes), the latter inclusive, `tops` (n, channels), and
    `second` (n, axes, axes), the sums of the products of positions.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    tops: NDArray[np.float64]
    second: NDArray[np.int64]


class _Rows:
    """Rows of objects, one for each part that an object is in, merged when there are many."""

    def __init__(self, axes: int, channels: int) -> None:
        none = np.zeros((0, axes), np.int64)
        empty = np.zeros(0, np.int64)
        tops, second = np.zeros((0, channels)), np.zeros((0, axes, axes), np.int64)
        self._parts = [_Table(empty, empty, np.zeros((0, axes + channels)), none, none, tops, second)]

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
        tops = np.full((n, len(values)), -np.inf)
        for k, value in enumerate(values):
            np.maximum.at(tops[:, k], inverse, value.astype(np.float64))
        counts = np.bincount(inverse, minlength=n)
        local = [p - s for p, s in zip(places, starts, strict=True)]
        second = _second_moments(local, starts, inverse, counts)
        self._parts.append(_Table(ids, counts, np.stack(sums, 1), low, high, tops, second))
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
            merged("tops", np.maximum),
            merged("second", np.add),
        )


def _second_moments(
    places: Sequence[NDArray[np.intp]],
    starts: Sequence[int],
    inverse: NDArray[np.intp],
    counts: NDArray[np.intp],
) -> NDArray[np.int64]:
    """Return the sums of products of positions of each object, (n, axes, axes).

    Args:
        places: positions of the voxels along each axis, from the start of the part.
        starts: of the part.
        inverse: number of each voxel's object.
        counts: voxels of each object.
    """
    n, axes = len(counts), len(places)
    near = [p.astype(np.float64) for p in places]
    # Sums within a part are whole numbers below 2^53, which float64 holds exactly.
    sums = [np.bincount(inverse, p, n).astype(np.int64) for p in near]
    found = np.zeros((n, axes, axes), np.int64)
    for a in range(axes):
        for b in range(a, axes):
            products = np.bincount(inverse, near[a] * near[b], n).astype(np.int64)
            moved = starts[b] * sums[a] + starts[a] * sums[b] + starts[a] * starts[b] * counts
            found[:, a, b] = found[:, b, a] = products + moved
    return found


def _covariances(found: _Table, axes: int) -> NDArray[np.float64]:
    """Return the covariances of the positions of each object's voxels, (n, axes, axes), from exact whole numbers."""
    counts, sums = found.counts.astype(object), found.sums[:, :axes].astype(np.int64).astype(object)
    result = np.zeros(found.second.shape)
    for a in range(axes):
        for b in range(axes):
            exact = counts * found.second[:, a, b].astype(object) - sums[:, a] * sums[:, b]
            result[:, a, b] = (exact / (counts * counts)).astype(np.float64)
    return result


def _unique_labels(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the distinct labels, sorted, and the number of each; by counting, where they are close merged, as that is faster."""
    least, most = int(labels.min()), int(labels.max())
    if most - least > 4 * len(labels) + (1 << 16):
        ids, inverse = np.unique(labels, return_inverse=True)
        return ids.astype(np.int64), inverse
    shifted = (labels - labels.dtype.type(least)).astype(np.intp)
    there = np.bincount(shifted) > 0
    return np.flatnonzero(there).astype(np.int64) + least, (np.cumsum(there) - 1)[shifted]


def _columns(
    found: _Table, labels: xr.DataArray, names: Sequence[str], spacing: Mapping[str, float]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the columns of one image's objects, by their names: of their geometry, and of their intensities."""
    space = [str(a) for a in labels.dims]
    origin = labels.attrs.get("translation_um") or {}
    means = found.sums / np.maximum(found.counts, 1)[:, None]
    columns: dict[str, NDArray[Any]] = {"id": found.ids}
    if spacing:
        columns |= {
            f"centroid_{a}_um": float(origin.get(a, 0.0)) + means[:, k] * spacing[a]
            for k, a in enumerate(space)
        }
    columns |= {f"centroid_{a}": means[:, k] for k, a in enumerate(space)}
    size, unit = ("volume", "um3") if "z" in space else ("area", "um2")
    columns[size] = found.counts
    if spacing:
        columns[f"{size}_{unit}"] = found.counts * float(np.prod([spacing[a] for a in space]))
    columns |= {f"bbox_{a}_start": found.low[:, k] for k, a in enumerate(space)}
    columns |= {f"bbox_{a}_stop": found.high[:, k] + 1 for k, a in enumerate(space)}
    last = np.array([labels.sizes[a] - 1 for a in space])
    # Along an axis of one voxel, everything would touch.
    ends = ((found.low == 0) | (found.high == last)) & (last > 0)
    columns["touches_border"] = ends.any(axis=1)
    columns |= _axes(found, space, spacing)
    intensities: dict[str, NDArray[Any]] = {}
    for k, name in enumerate(names):
        intensities[f"mean{name}"] = means[:, len(space) + k]
        intensities[f"max{name}"] = found.tops[:, k]
        intensities[f"integrated{name}"] = found.sums[:, len(space) + k]
    return columns, intensities


def _axes(
    found: _Table, space: Sequence[str], spacing: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Return lengths, and in a plane shape and orientation, of the ellipses with the same second moments."""
    sizes, unit = np.array([spacing.get(a, 1.0) for a in space]), "um" if spacing else "px"
    covariance = _covariances(found, len(space)) * np.outer(sizes, sizes)
    values = np.maximum(np.linalg.eigvalsh(covariance), 0)
    small, large = values[:, 0], values[:, -1]
    factor = 16.0 if len(space) == 2 else 20.0
    columns = {f"length_{unit}": np.sqrt(factor * large), f"width_{unit}": np.sqrt(factor * small)}
    if len(space) == 2:
        ratio = np.divide(small, large, out=np.ones(len(large)), where=large > 0)
        columns["eccentricity"] = np.sqrt(1 - ratio)
        across = 2 * covariance[:, 0, 1]
        columns["orientation_deg"] = (
            np.degrees(np.arctan2(across, covariance[:, 0, 0] - covariance[:, 1, 1])) / 2
        )
    return columns
