"""Measurements that need the whole outline of an object: perimeter, surface, and convex hull.

They are those of scikit-image's `regionprops`. Objects are read in windows; of an object that is too large for the memory they are empty.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.evaluation.contingency import as_labels
from im2im_zoo.objects.windows import boxes, windows

if TYPE_CHECKING:
    import pandas as pd

# Voxels along y and x of the cells in which objects are read together.
_CELL = 1024
# Most voxels of the bounding box of an object that is measured; it takes about 50 bytes for each.
MOST_VOXELS = 1 << 26
# Weights of border pixels by their neighbours (10 for each at a corner, 2 at a side, 1 for itself), as in
# `skimage.measure.perimeter`: Benkrid et al. 2000, "Design and FPGA implementation of a perimeter estimator".
_WEIGHTS = np.zeros(50)
_WEIGHTS[[5, 7, 15, 17, 25, 27]] = 1
_WEIGHTS[[21, 33]] = math.sqrt(2)
_WEIGHTS[[13, 23]] = (1 + math.sqrt(2)) / 2


def measure_shapes(
    labels: xr.DataArray, rows: "pd.DataFrame", spacing: tuple[float, ...], *, most: int = MOST_VOXELS
) -> dict[str, NDArray[np.float64]]:
    """Return columns of each row's object, in its order; NaN where the bounding box has more than `most` voxels.

    Args:
        labels: of one position, with only the axes (z,) y, x.
        rows: of the table, sorted by id.
        spacing: size of a voxel along (z,) y, x.
        most: largest bounding box in voxels.

    Returns:
        In a plane `perimeter` (NaN if pixels are not square) and `solidity`: area / area of the convex hull. In a volume `surface_area`
        of the mesh by marching cubes, `sphericity`: pi^(1/3) (6 volume)^(2/3) / surface area, and `solidity`.
    """
    space = tuple(str(a) for a in labels.dims)
    names = ("perimeter", "solidity") if len(space) == 2 else ("surface_area", "sphericity", "solidity")
    columns = {name: np.full(len(rows), np.nan) for name in names}
    sizes = np.prod([rows[f"bbox_{a}_stop"] - rows[f"bbox_{a}_start"] for a in space], axis=0)
    measured = rows[sizes <= most]
    places = {int(label): place for place, label in enumerate(rows["id"])}
    of_id = dict(boxes(measured, space))
    for region, ids in windows(measured, space, _CELL):
        window = as_labels(labels.isel(dict(zip(space, region, strict=True))).to_numpy(), "labels")
        at = [places[int(label)] for label in ids]
        if len(space) == 2 and spacing[0] == spacing[1]:
            columns["perimeter"][at] = spacing[0] * _perimeters(window, ids)
        for label, place in zip(ids.tolist(), at, strict=True):
            inside = tuple(
                slice(b.start - r.start, b.stop - r.start) for b, r in zip(of_id[label], region, strict=True)
            )
            mask = window[inside] == label
            columns["solidity"][place] = _solidity(mask)
            if len(space) == 3:
                volume, surface = np.count_nonzero(mask) * math.prod(spacing), _surface(mask, spacing)
                columns["surface_area"][place] = surface
                columns["sphericity"][place] = math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface
    return columns


def _perimeters(window: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the perimeter in pixels of the objects of a window that contains them whole, of all at once."""
    padded = np.pad(window, 1)
    at = np.flatnonzero(padded)
    flat, row = padded.ravel(), padded.shape[1]
    own = flat[at]
    sides, corners = (-row, -1, 1, row), (-row - 1, -row + 1, row - 1, row + 1)
    is_border = np.zeros(padded.size, bool)
    same = np.ones(len(at), bool)
    for step in sides:
        same &= flat[at + step] == own
    at, own = at[~same], own[~same]
    is_border[at] = True
    index = np.ones(len(at), np.intp)
    for steps, weight in ((sides, 2), (corners, 10)):
        for step in steps:
            index += weight * (is_border[at + step] & (flat[at + step] == own))
    places = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
    listed = ids[places] == own
    return np.bincount(places[listed], _WEIGHTS[index[listed]], len(ids)).astype(np.float64)


def _solidity(mask: NDArray[np.bool_]) -> float:
    """Return voxels / voxels in the convex hull; of a plane, as of the polygon around the middles of the sides of pixels."""
    if mask.ndim == 3:
        from skimage.morphology import convex_hull_image

        # A flat object has no hull in three dimensions, and as many voxels as its plane has.
        if min(mask.shape) == 1:
            return _solidity(mask.squeeze(axis=int(np.argmin(mask.shape))))
        hull = convex_hull_image(mask)  # type: ignore[no-untyped-call]
        return float(np.count_nonzero(mask) / np.count_nonzero(hull))
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows][:, ::-1].argmax(axis=1)
    # The hull of the outermost pixels of each row is that of all.
    ends = np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=1)
    offsets = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    points = (ends[:, None] + offsets).reshape(-1, 2)
    corners = points[ConvexHull(points).vertices]
    following = np.roll(corners, -1, axis=0)
    y = np.arange(rows[0], rows[-1] + 1)[:, None]
    low, high = np.minimum(corners[:, 0], following[:, 0]), np.maximum(corners[:, 0], following[:, 0])
    rise = following[:, 0] - corners[:, 0]
    slope = np.divide(following[:, 1] - corners[:, 1], rise, out=np.zeros(len(rise)), where=rise != 0)
    cut = corners[:, 1] + (y - corners[:, 0]) * slope
    crosses = (y >= low) & (y <= high) & (rise != 0)
    left = np.where(crosses, cut, np.inf).min(axis=1)
    right = np.where(crosses, cut, -np.inf).max(axis=1)
    inside = int((np.floor(right + 1e-9) - np.ceil(left - 1e-9) + 1).sum())
    return float(np.count_nonzero(mask) / inside)


def _surface(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> float:
    from skimage.measure import marching_cubes, mesh_surface_area

    vertices, faces, *_ = marching_cubes(  # type: ignore[no-untyped-call]
        np.pad(mask, 1).astype(np.float32), 0.5, spacing=spacing
    )
    return float(mesh_surface_area(vertices, faces))  # type: ignore[no-untyped-call]
