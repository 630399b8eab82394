"""Outlines of the objects of a label image as GeoJSON, as QuPath and napari read it. Writes no file.

Outlines are scikit-image's contours at one half between an object and what is not: between the centres of the voxels, so that
a voxel's centre lies inside if and only if the voxel is the object's. Volumes have one outline an object in each of their planes.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import SPACE
from im2im_zoo.evaluation.contingency import as_labels
from im2im_zoo.objects.table import boxes

if TYPE_CHECKING:
    import pandas as pd

# Voxels along y and x of the cells in which objects are read together; those that are larger are read alone.
_CELL = 1024
Ring = list[list[float]]


def outlines(labels: xr.DataArray, table: "pd.DataFrame", *, cell: int = _CELL) -> Iterator[dict[str, Any]]:
    """A GeoJSON feature an object and plane; what is in memory is a window of at most twice `cell` voxels, or one larger object.

    Args:
        labels: as the table was made of, lazy or not.
        table: of `object_table`.
        cell: voxels along y and x within which objects are read together; the features are the same for any number.

    Yields:
        Features with a Polygon, or a MultiPolygon of objects in several parts, with holes, in pixels: (0, 0) is the corner of the first
        one, as in QuPath. `objectType` is `detection`, `name` the object's id; its measurements are those of the table.
    """
    space = tuple(a for a in SPACE if a in labels.dims)
    outer = [str(a) for a in labels.dims if a not in space]
    for place, rows in table.groupby(outer, sort=True) if outer else [((), table)]:
        where = dict(zip(outer, map(int, place), strict=True))
        one = labels.isel(where).transpose(*space)
        measured = {int(row["id"]): _measurements(row) for row in rows.to_dict("records")}
        for region, ids in _windows(rows, space, cell):
            window = as_labels(one.isel(dict(zip(space, region, strict=True))).to_numpy(), "labels")
            corner = [r.start for r in region]
            if len(space) == 2:
                window, corner = window[None], [0, *corner]
            for z, plane in enumerate(window, corner[0]):
                placed = where | ({"z": z} if "z" in space else {})
                yield from _features(plane, (corner[1], corner[2]), ids, measured, placed)


def polygons(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """The outlines of a mask (y, x): parts, each of which is its outer ring and those of its holes, of closed (x, y) points in pixels.

    Voxels that touch at their corners are of one part.
    """
    from skimage.measure import find_contours

    found = find_contours(  # type: ignore[no-untyped-call]
        np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="high"
    )
    # One voxel of padding; and voxel k reaches from k to k + 1.
    rings = [_corners(ring[:, ::-1] - 0.5) for ring in found]
    areas = np.array([_area(ring) for ring in rings])
    if not len(areas):
        return []
    # The largest is an outer ring, and holes go round the other way.
    sign = np.sign(areas[np.argmax(np.abs(areas))])
    outer = [k for k in range(len(rings)) if areas[k] * sign > 0]
    parts = {k: [rings[k]] for k in outer}
    for k in set(range(len(rings))) - set(outer):
        around = [o for o in outer if _contains(rings[o], rings[k][:1])]
        parts[min(around, key=lambda o: abs(areas[o]))].append(rings[k])
    return [[ring.tolist() for ring in part] for part in parts.values()]


def _features(
    plane: NDArray[Any],
    corner: tuple[int, int],
    ids: NDArray[np.int64],
    measured: Mapping[int, Mapping[str, float]],
    place: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    from scipy.ndimage import find_objects

    there, number = np.unique(plane, return_inverse=True)
    slices = find_objects(number.reshape(plane.shape) + 1)
    for label, box in zip(there, slices, strict=True):
        if label == 0 or not _among(label, ids):
            continue
        y, x = corner[0] + box[0].start, corner[1] + box[1].start
        parts = polygons(plane[box] == label)
        shifted = [[[[px + x, py + y] for px, py in ring] for ring in part] for part in parts]
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": shifted[0]}
        if len(shifted) > 1:
            geometry = {"type": "MultiPolygon", "coordinates": shifted}
        if place:
            # QuPath's own way to say where; -1 is all channels.
            geometry["plane"] = {
                "c": place.get("channel", -1),
                "z": place.get("z", 0),
                "t": place.get("time", 0),
            }
        properties = {"objectType": "detection", "name": str(label), "measurements": measured[int(label)]}
        yield {"type": "Feature", "geometry": geometry, "properties": properties}


def _among(label: int, ids: NDArray[np.int64]) -> bool:
    at = int(np.searchsorted(ids, label))
    return at < len(ids) and int(ids[at]) == int(label)


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed ring without the points at which it goes straight on; steps are of half voxels, so that this is exact."""
    steps = np.diff(ring, axis=0)
    before = np.roll(steps, 1, axis=0)
    turns = steps[:, 0] * before[:, 1] != steps[:, 1] * before[:, 0]
    kept = ring[:-1][turns]
    return np.concatenate([kept, kept[:1]])


def _contains(ring: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    from skimage.measure import points_in_poly

    return bool(points_in_poly(point, ring)[0])  # type: ignore[no-untyped-call]


def _area(ring: NDArray[np.float64]) -> float:
    """Twice the signed area of a closed ring."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _windows(
    rows: "pd.DataFrame", space: tuple[str, ...], side: int
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.int64]]]:
    """Regions that hold their objects whole, and the ids of these, sorted; objects that begin in one cell are read together."""
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


def _measurements(row: Mapping[Any, Any]) -> dict[str, float]:
    """Of a row, what QuPath shows: the sizes and means, numbers all."""
    kept = ("area", "volume", "mean", "centroid")
    return {str(k): float(v) for k, v in row.items() if str(k).startswith(kept) and np.isfinite(v)}
