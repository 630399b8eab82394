"""Sizes and halo that the RDF declares, computed from measurements of the network, in voxels.

The halo is a multiple of the step: programs that pad an image by its halo (deepImageJ, bioimageio.core on whole images) would move the grid of the network's pooling by any other, and change the result everywhere. The format requires
`min - 2 * halo >= 1`, so a halo makes the smallest tile larger, and an image that is thinner than that along z would have
to be padded for nothing: the halo is limited by the size of the sample images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xarray as xr

from im2im_zoo.networks import Call, Grid, Halo, as_call, effective_halo, receptive_field_radius, step_grid
from im2im_zoo.packaging.export.sample import Sample, Steps
from im2im_zoo.packaging.export.weights import FORMATS
from im2im_zoo.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

# Part of an image on which the halo is measured, in voxels along (z,) y, x.
_MEASURED_PART = {2: (512, 512), 3: (32, 128, 128)}
_SAMPLES = {2: 3, 3: 1}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Declared sizes and halo per space axis, in voxels.

    Attributes:
        min, step: declared sizes.
        halo: declared halo.
        source: origin of the halo: measured, the receptive field, or limited by the size of the images.
        grid: sizes that the network itself accepts.
        receptive_field: radius; None if it is the whole image.
        error, tolerance: largest difference between tiles and whole image at the measured halo, and its limit.
    """

    min: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    source: tuple[str, ...]
    grid: Grid
    receptive_field: tuple[int, ...] | None
    error: float
    tolerance: float


def network_grid(
    network: "nn.Module", recipe: Recipe, samples: Sequence[Sample], formats: Sequence[str] = FORMATS
) -> Grid:
    """Return the sizes at which a trained network is packaged.

    If the network accepts several sizes, but its ONNX and TorchScript forms only one (attention windows that are counted in
    Python), these are the patch sizes of its training for either format, and its own sizes for state dicts only.

    Raises:
        PackageError: the network runs neither on a regular grid of sizes nor at the patch size of its training.
    """
    probed = as_call(network) if set(formats) == {"pytorch_state_dict"} else network
    channels, ndim = samples[0].input.sizes["channel"], len(recipe.space)
    return step_grid(probed, channels, ndim, patch=recipe.data.patch)


@dataclass(frozen=True, slots=True)
class NetworkMeasurements:
    """Receptive field of a network (None: the whole image), the halo on each image, and the smallest extents of the images."""

    reach: tuple[int, ...] | None
    halos: tuple[Halo, ...]
    extents: tuple[int, ...]


def measure_geometry(
    call: "Call | nn.Module", network: "nn.Module", grid: Grid, steps: Steps, samples: Sequence[Sample]
) -> NetworkMeasurements:
    """Measure a network on its samples.

    Args:
        call: network as a function of arrays.
        network: the module itself, for its receptive field.
        grid: accepted sizes, from `network_grid`.
        steps: preprocessing of an image.
        samples: raw images.
    """
    ndim = len(steps.axes) - 2
    reach = receptive_field_radius(network, samples[0].input.sizes["channel"], grid)
    halos = []
    for sample in samples[: _SAMPLES[ndim]]:
        part = centre(sample.input, steps.axes[2:], _MEASURED_PART[ndim])
        halos.append(effective_halo(call, steps.prepare(sample.input, part).to_numpy(), grid))
    extents = tuple(min(s.input.sizes[a] for s in samples) for a in steps.axes[2:])
    return NetworkMeasurements(reach, tuple(halos), extents)


def declare(grid: Grid, measured: NetworkMeasurements, least: Sequence[int] | None = None) -> Geometry:
    """Compute the declared sizes: a halo that suffices on every image, and the smallest tile size that exceeds it.

    Args:
        grid: accepted sizes of the network.
        measured: measurements of the network.
        least: smallest halo per axis.
    """
    reach, halos = measured.reach, measured.halos
    sizes, kept, sources = [], [], []
    for axis, step in enumerate(grid.step):
        enough = all(h.sufficient[axis] for h in halos)
        wanted, source = max(h.voxels[axis] for h in halos), "measured"
        if not enough:
            known = reach is not None
            wanted = max(wanted, reach[axis]) if reach is not None else wanted
            source = "receptive field" if known else "none is exact, and a larger one helps little"
        multiple = max(step, 1)
        wanted = -(-max(wanted, least[axis] if least else 0) // multiple) * multiple
        if step:
            largest = max(grid.min[axis], measured.extents[axis] // step * step)
            size = min(max(grid.min[axis], 2 * wanted + step), largest)
            limit, limited_by = (size - 1) // 2, "images"
        else:
            # Half of each tile is kept: no halo makes the others exact, and there would be very many tiles.
            size, limited_by = grid.min[axis], "network"
            limit = (size - 1) // 2 if enough else size // 4
        halo = min(wanted, limit) // multiple * multiple
        sizes.append(size)
        kept.append(halo)
        limits = f"{source}, limited to {halo} by the size of the {limited_by}"
        sources.append(source if halo == wanted else limits)
    worst = max(halos, key=lambda h: h.error)
    return Geometry(
        tuple(sizes), grid.step, tuple(kept), tuple(sources), grid, reach, worst.error, worst.tolerance
    )


def centre(image: xr.DataArray, axes: Sequence[str], sizes: Sequence[int]) -> dict[str, slice]:
    """Return the middle of an image, at most `sizes` voxels along `axes`."""
    part = {}
    for axis, size in zip(axes, sizes, strict=True):
        have = image.sizes[axis]
        start = max(0, (have - size) // 2)
        part[axis] = slice(start, min(have, start + size))
    return part
