"""The sizes and the halo that the RDF declares, from what was measured on the network. Integers only.

The format wants `min - 2 * halo >= 1`, so a halo makes the smallest tile larger, and an image that is thinner than
that along z would have to be padded for nothing: the halo is kept to what the sample images allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xarray as xr

from im2im_zoo.networks import Call, Grid, Halo, effective_halo, receptive_field, step_grid
from im2im_zoo.packaging.sample import Sample, Steps

if TYPE_CHECKING:
    from torch import nn

# Of the images on which the halo is measured; voxels along (z,) y, x.
_PART = {2: (512, 512), 3: (32, 128, 128)}
_SAMPLES = {2: 3, 3: 1}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Per space axis, in voxels: declared sizes (`min`, `step`), `halo`, and what they come from.

    `grid` is what the network itself takes; `receptive_field` is None if every voxel reaches everywhere; `source`
    says, per axis, whether the halo is measured, the receptive field, or limited by the size of the images.
    """

    min: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    source: tuple[str, ...]
    grid: Grid
    receptive_field: tuple[int, ...] | None
    error: float
    tolerance: float


def measure_geometry(
    call: "Call | nn.Module",
    network: "nn.Module",
    steps: Steps,
    samples: Sequence[Sample],
    scales: Sequence[float],
) -> Geometry:
    """Measure a network on its samples.

    Args:
        call: the network as a function of arrays.
        network: the module itself, for its grid and receptive field.
        steps: what happens to an image before it.
        samples: raw images.
        scales: pixel size per space axis as the RDF will declare it, 1 if it declares none.
    Raises:
        PackageError: the network runs at no regular sizes.
    """
    ndim = len(steps.axes) - 2
    channels = samples[0].input.sizes["channel"]
    grid = step_grid(network, channels, ndim)
    reach = receptive_field(network, channels, grid)
    halos = []
    for sample in samples[: _SAMPLES[ndim]]:
        part = centre(sample.input, steps.axes[2:], _PART[ndim])
        halos.append(effective_halo(call, steps.prepare(sample.input, part).to_numpy(), grid))
    extents = tuple(min(s.input.sizes[a] for s in samples) for a in steps.axes[2:])
    return declare(grid, reach, halos, extents, scales)


def declare(
    grid: Grid,
    reach: tuple[int, ...] | None,
    halos: Sequence[Halo],
    extents: Sequence[int],
    scales: Sequence[float],
) -> Geometry:
    """The declared sizes: a halo that is enough on every image, and the smallest size that leaves something of it.

    Args:
        grid: of the network.
        reach: its receptive field.
        halos: measured, one an image.
        extents: of the smallest sample image.
        scales: pixel sizes as declared.
    """
    sizes, kept, sources = [], [], []
    for axis, step in enumerate(grid.step):
        enough = all(h.sufficient[axis] for h in halos)
        wanted, source = max(h.voxels[axis] for h in halos), "measured"
        if not enough:
            known = reach is not None
            wanted = max(wanted, reach[axis]) if reach is not None else wanted
            source = "receptive field" if known else "none is exact, and a larger one helps little"
        wanted = _whole(wanted, scales[axis], 1)
        largest = max(grid.min[axis], extents[axis] // step * step)
        size = min(max(grid.min[axis], -(-(2 * wanted + 1) // step) * step), largest)
        halo = _whole(min(wanted, (size - 1) // 2), scales[axis], -1)
        sizes.append(size)
        kept.append(halo)
        sources.append(source if halo == wanted else f"{source}, limited to {halo} by the size of the images")
    worst = max(halos, key=lambda h: h.error)
    return Geometry(
        tuple(sizes), grid.step, tuple(kept), tuple(sources), grid, reach, worst.error, worst.tolerance
    )


def centre(image: xr.DataArray, axes: Sequence[str], sizes: Sequence[int]) -> dict[str, slice]:
    """The middle of an image, at most `sizes` voxels along `axes`."""
    part = {}
    for axis, size in zip(axes, sizes, strict=True):
        have = image.sizes[axis]
        start = max(0, (have - size) // 2)
        part[axis] = slice(start, min(have, start + size))
    return part


def _whole(halo: int, scale: float, direction: int) -> int:
    """The next halo that stays whole when the format multiplies it by the scale and divides it again, in floats.

    6 * 0.2 / 0.2 is 6.000000000000001: bioimageio.spec refuses it, and cuts off 5 where it rounds down.
    """
    while halo > 0 and not (halo * scale / scale == halo and int(halo / scale * scale) == halo):
        halo += direction
    return max(halo, 0)
