"""Outlines of the objects of a label image as GeoJSON, as QuPath and napari read it.

Outlines are scikit-image's contours at one half between an object and its surroundings, that is between the centres of the voxels, so that
a voxel's centre lies inside if and only if the voxel belongs to the object. A volume has one outline for each object in each of its planes.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import SPACE
from im2im_zoo.evaluation.contingency import as_labels
from im2im_zoo.objects.windows import windows

if TYPE_CHECKING:
    import pandas as pd

# Voxels along y and x of the cells in which objects are read together; larger ones are read one by one.
_CELL = 1024
# Starts of the names of columns that are measurements.
_SIZES = ("area", "volume", "centroid", "length", "width", "perimeter", "surface", "sphericity", "solidity")
_MEASURED = (*_SIZES, "eccentricity", "orientation", "mean", "max", "integrated", "parent")
Ring = list[list[float]]


def outlines(labels: xr.DataArray, table: "pd.DataFrame", *, cell: int = _CELL) -> Iterator[dict[str, Any]]:
    """Yield a GeoJSON feature for each object and plane, with a window of at most twice `cell` voxels, or one larger object, in memory.

    Args:
        labels: label image that the table was computed from, lazy or not.
        table: result of `object_table`.
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
        for region, ids in windows(rows, space, cell):
            window = as_labels(one.isel(dict(zip(space, region, strict=True))).to_numpy(), "labels")
            corner = [r.start for r in region]
            if len(space) == 2:
                window, corner = window[None], [0, *corner]
            for z, plane in enumerate(window, corner[0]):
                placed = where | ({"z": z} if "z" in space else {})
                yield from _features(plane, (corner[1], corner[2]), ids, measured, placed)


def polygons(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Return the outlines of a mask (y, x): parts, each of which is its outer ring and those of its holes, of closed (x, y) points in pixels.

    Voxels that touch at their corners belong to one part.
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
    # The largest is an outer ring; holes have the opposite orientation.
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
        if label == 0 or not _is_listed(label, ids):
            continue
        y, x = corner[0] + box[0].start, corner[1] + box[1].start
        parts = polygons(plane[box] == label)
        shifted = [[[[px + x, py + y] for px, py in ring] for ring in part] for part in parts]
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": shifted[0]}
        if len(shifted) > 1:
            geometry = {"type": "MultiPolygon", "coordinates": shifted}
        if place:
            # QuPath's own key for the position; -1 is all channels.
            geometry["plane"] = {
                "c": place.get("channel", -1),
                "z": place.get("z", 0),
                "t": place.get("time", 0),
            }
        properties = {"objectType": "detection", "name": str(label), "measurements": measured[int(label)]}
        yield {"type": "Feature", "geometry": geometry, "properties": properties}


def _is_listed(label: int, ids: NDArray[np.int64]) -> bool:
    at = int(np.searchsorted(ids, label))
    return at < len(ids) and int(ids[at]) == int(label)


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a closed ring without collinear points; steps are of half voxels, so that this is exact."""
    steps = np.diff(ring, axis=0)
    before = np.roll(steps, 1, axis=0)
    turns = steps[:, 0] * before[:, 1] != steps[:, 1] * before[:, 0]
    kept = ring[:-1][turns]
    return np.concatenate([kept, kept[:1]])


def _contains(ring: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    from skimage.measure import points_in_poly

    return bool(points_in_poly(point, ring)[0])  # type: ignore[no-untyped-call]


def _area(ring: NDArray[np.float64]) -> float:
    """Return twice the signed area of a closed ring."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _measurements(row: Mapping[Any, Any]) -> dict[str, float]:
    """Return the measurements that QuPath shows: all but the id, the bounding box and the position in the image."""
    return {str(k): float(v) for k, v in row.items() if str(k).startswith(_MEASURED) and np.isfinite(v)}
