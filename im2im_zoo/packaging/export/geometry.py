"""The sizes and the halo that the RDF declares, from what was measured on the network. Integers only.

The format wants `min - 2 * halo >= 1`, so a halo makes the smallest tile larger, and an image that is thinner than
that along z would have to be padded for nothing: the halo is kept to what the sample images allow.
"""

import math
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


def network_grid(
    network: "nn.Module", recipe: Recipe, samples: Sequence[Sample], formats: Sequence[str] = FORMATS
) -> Grid:
    """The sizes at which a trained network goes into a package.

    Where the network takes several, but ONNX and TorchScript one alone (windows of attention that are counted in Python),
    it goes by the patches of its training if it is written in one of the two, and by its own sizes if not.

    Raises:
        PackageError: it runs at no regular sizes, nor at that of its training.
    """
    probed = as_call(network) if set(formats) == {"pytorch_state_dict"} else network
    channels, ndim = samples[0].input.sizes["channel"], len(recipe.space)
    return step_grid(probed, channels, ndim, patch=recipe.data.patch)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a network and its samples show: how far it sees (None: everywhere), the halo on each image, the smallest extents."""

    reach: tuple[int, ...] | None
    halos: tuple[Halo, ...]
    extents: tuple[int, ...]


def look_at(
    call: "Call | nn.Module", network: "nn.Module", grid: Grid, steps: Steps, samples: Sequence[Sample]
) -> Seen:
    """Measure a network on its samples.

    Args:
        call: the network as a function of arrays.
        network: the module itself, for its receptive field.
        grid: the sizes that it takes, of `network_grid`.
        steps: what happens to an image before it.
        samples: raw images.
    """
    ndim = len(steps.axes) - 2
    reach = receptive_field_radius(network, samples[0].input.sizes["channel"], grid)
    halos = []
    for sample in samples[: _SAMPLES[ndim]]:
        part = centre(sample.input, steps.axes[2:], _PART[ndim])
        halos.append(effective_halo(call, steps.prepare(sample.input, part).to_numpy(), grid))
    extents = tuple(min(s.input.sizes[a] for s in samples) for a in steps.axes[2:])
    return Seen(reach, tuple(halos), extents)


def declare(grid: Grid, seen: Seen, scales: Sequence[float], least: Sequence[int] | None = None) -> Geometry:
    """The declared sizes: a halo that is enough on every image, and the smallest size that leaves something of it.

    Args:
        grid: of the network.
        seen: what was measured.
        scales: pixel size per space axis as the RDF will declare it, 1 if it declares none.
        least: halos below which none is declared.
    """
    reach, halos = seen.reach, seen.halos
    sizes, kept, sources = [], [], []
    for axis, step in enumerate(grid.step):
        enough = all(h.sufficient[axis] for h in halos)
        wanted, source = max(h.voxels[axis] for h in halos), "measured"
        if not enough:
            known = reach is not None
            wanted = max(wanted, reach[axis]) if reach is not None else wanted
            source = "receptive field" if known else "none is exact, and a larger one helps little"
        wanted = _whole(max(wanted, least[axis] if least else 0), scales[axis], step, 1)
        if step:
            largest = max(grid.min[axis], seen.extents[axis] // step * step)
            size = min(max(grid.min[axis], -(-(2 * wanted + 1) // step) * step), largest)
            limit, limited_by = (size - 1) // 2, "images"
        else:
            # Half of each tile is kept: no halo makes the others exact, and there would be very many tiles.
            size, limited_by = grid.min[axis], "network"
            limit = (size - 1) // 2 if enough else size // 4
        halo = _whole(min(wanted, limit), scales[axis], step, -1)
        sizes.append(size)
        kept.append(halo)
        limits = f"{source}, limited to {halo} by the size of the {limited_by}"
        sources.append(source if halo == wanted else limits)
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


def exact_scale(size: float) -> float:
    """The next pixel size by which whole numbers can be multiplied and divided again: 39 binary digits, a difference of 1e-12.

    Sizes that refer to another axis are computed so; 126 * 0.2 / 0.2 is 126.00000000000001, which bioimageio.spec refuses, and
    others come out one too small.
    """
    digits, exponent = math.frexp(size)
    return math.ldexp(round(math.ldexp(digits, 39)), exponent - 39)


def _whole(halo: int, scale: float, step: int, direction: int) -> int:
    """The next halo that keeps sizes on the grid, and stays whole when the format multiplies it by the scale and divides it again.

    bioimageio.core 0.11 puts the halo around whole images before it runs the network, which then has to take size + 2 halo. In
    floats 6 * 0.2 / 0.2 is 6.000000000000001: bioimageio.spec refuses it, and cuts off 5 where it rounds down.
    """

    def fits(n: int) -> bool:
        is_whole = n * scale / scale == n and int(n / scale * scale) == n
        return is_whole and (step == 0 or 2 * n % step == 0)

    while halo > 0 and not fits(halo):
        halo += direction
    return max(halo, 0)
