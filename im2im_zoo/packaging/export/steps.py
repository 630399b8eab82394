"""Single steps of an export, each on what all of them need: own files, names of channels, pictures, the tolerance. `export` has their order."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import open_engine
from im2im_zoo.instances.grouping import Grouping
from im2im_zoo.networks import Call, Grid, effective_halo
from im2im_zoo.packaging.export.cover import write_comparison, write_cover
from im2im_zoo.packaging.export.geometry import Geometry, centre, declare, look_at
from im2im_zoo.packaging.export.image_facts import channel_names_of
from im2im_zoo.packaging.export.rdf.content import COMPARISON
from im2im_zoo.packaging.export.rdf.operations import file_name
from im2im_zoo.packaging.export.sample import Sample, Steps
from im2im_zoo.packaging.export.tensors import Crop, choose_crop
from im2im_zoo.packaging.export.weights import OPSET, Weights, architecture_of
from im2im_zoo.packaging.grouping import describe_grouping, grouping_file, grouping_name, labels_of
from im2im_zoo.processing import fit
from im2im_zoo.processing.custom_code import source_file
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component

if TYPE_CHECKING:
    from torch import nn

_COVER_PART = {2: (1024, 1024), 3: (32, 256, 256)}


@dataclass(frozen=True)
class Work:
    """What the steps of an export need."""

    network: "nn.Module"
    call: Call
    recipe: Recipe
    samples: Sequence[Sample]
    folder: Path
    steps: Steps
    formats: Sequence[str]
    architecture: Component
    packages: Sequence[str] = ()
    trained_with: Recipe | None = None
    grid: Grid | None = None
    opset: int = OPSET

    @property
    def grouping(self) -> Grouping | None:
        """That of the recipe, whose file is in the folder."""
        name = grouping_name(self.recipe)
        if name is None:
            return None
        return Grouping(**describe_grouping(self.recipe, sha256(self.folder / name)))


def measured_crop(work: Work, grid: Grid, scales: Sequence[float]) -> tuple[Geometry, Crop]:
    """The sizes and the halo to declare, and the part of the first sample that becomes the test tensors.

    The halo that is needed depends on the image: it is measured on the test tensors, too, which are what others judge it by,
    and raised to what these ask for.

    Args:
        grid: the sizes that the network takes.
        scales: pixel size per space axis as the RDF will declare it, 1 if it declares none.
    """
    steps, space = work.steps, work.recipe.space
    seen = look_at(work.call, work.network, grid, steps, work.samples)
    least = [0] * len(space)
    while True:
        geometry = declare(grid, seen, scales, least)
        crop = choose_crop(work.samples[0], geometry, space)
        halo = effective_halo(
            work.call, steps.prepare(crop.input).to_numpy(), Grid(geometry.min, geometry.step)
        )
        more = [
            voxels if shown and voxels > max(have, tried) else tried
            for voxels, shown, have, tried in zip(
                halo.voxels, halo.sufficient, geometry.halo, least, strict=True
            )
        ]
        if more == least:
            return geometry, crop
        least = more


def declared_tolerance(
    work: Work, weights: Weights, prepared: NDArray[Any], image: Any, expected: NDArray[Any]
) -> dict[str, float] | None:
    """The RDF's tolerance: ten times what the formats differ by here, within what the spec allows.

    None if the test output has no positive value: the spec's limit, a hundredth of the largest, has no room then.
    """
    largest = float(expected.max())
    if largest <= 0:
        return None
    worst, mismatched = 0.0, 0.0
    for name, path in weights.files.items():
        described = weights.architecture if name == "pytorch_state_dict" else None
        architecture = architecture_of(described) if described else None
        engine = open_engine(name, path, architecture=architecture, root=work.folder, allow_code=True)
        result = work.steps.finish(engine([prepared])[0], image).to_numpy()
        differences = np.abs(result.astype(np.float64) - expected)
        worst = max(worst, float(differences.max()))
        mismatched = max(mismatched, 1e6 * float((differences > 0.01 * largest).mean()))
    # Other machines and GPUs differ more than the formats do on this one: at least 1e-4 of the largest value.
    absolute = min(max(10 * worst, 1e-4 * largest), 0.01 * largest)
    return {
        "relative_tolerance": 1e-3,
        "absolute_tolerance": float(f"{absolute * 0.999:.2e}"),
        "mismatched_elements_per_million": min(1000, max(100, int(2 * mismatched))),
    }


def write_cover_picture(work: Work, shown: "Shown") -> None:
    """Write the cover."""
    write_cover(work.folder / "cover.png", shown.input, shown.output, work.recipe.output.task)


def write_comparison_picture(work: Work, shown: "Shown") -> None:
    """Write what the cover shows beside its target."""
    task = work.recipe.output.task
    write_comparison(work.folder / COMPARISON, shown.input, shown.output, shown.target, task)


@dataclass(frozen=True)
class Shown:
    """A crop of a sample, without batch, and the network's output for it."""

    input: xr.DataArray
    output: xr.DataArray
    target: xr.DataArray


def crop_to_show(work: Work, grid: Grid, channels: int) -> Shown:
    """Return the middle of the first sample, and the first `channels` of the output for it.

    The network runs on the crop at once: one that takes a single size is shown with a crop of that size.
    """
    sample, space = work.samples[0], work.recipe.space
    limits = [
        most if step else min(most, size)
        for most, size, step in zip(_COVER_PART[len(space)], grid.min, grid.step, strict=True)
    ]
    part = centre(sample.input, space, limits)
    raw = _output_of_crop(work.call, work.steps.prepare(sample.input, part).to_numpy(), grid)
    image = sample.input.isel(part)
    result = work.steps.finish(raw, image).isel(batch=0, channel=slice(channels))
    if work.grouping is not None:
        result = labels_of(work.grouping.load(work.folder, allow_code=True), result).expand_dims("channel")
    return Shown(image, result, sample.target.isel(part))


def _output_of_crop(call: Call, array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """The network's output for a crop (batch, channel, *space) that is no larger than it takes, extended by its mirror image."""
    space = array.shape[2:]
    missing = [(0, w - n) for w, n in zip(grid.ceil(space), space, strict=True)]
    output = call(np.ascontiguousarray(np.pad(array, [(0, 0), (0, 0), *missing], mode="reflect")))
    return output[(slice(None), slice(None), *(slice(n) for n in space))]


def copy_own_files(work: Work) -> None:
    """Copy the files of custom operations and of the grouping into the package."""
    grouping = grouping_file(work.recipe, work.packages)
    if grouping is not None:
        shutil.copyfile(grouping, work.folder / str(grouping_name(work.recipe)))
    for operation in (*work.recipe.input.preprocessing, *work.recipe.output.postprocessing):
        if operation.id != "custom":
            continue
        try:
            path = source_file(operation, work.steps.root or Path())
        except ProcessingError as error:
            raise PackageError(str(error)) from error
        target = work.folder / file_name(str(operation.source))
        if target.exists() and target.read_bytes() != path.read_bytes():
            raise PackageError(
                f"two custom operations, or one and the grouping, have different files named {target.name}: rename one"
            )
        shutil.copyfile(path, target)


def target_channels(work: Work, target: Any, count: int) -> int:
    """How many of the output's channels are the target's: all, or the first half, whose variances follow."""
    if work.grouping is not None:  # they are maps
        return count
    half: int = target.sizes["channel"]
    if count == 2 * half and work.recipe.target.preprocessing:  # it may make channels, e.g. one of each class
        steps = work.steps
        pipeline = fit(work.recipe.target.preprocessing, target, allow_code=steps.allow_code, root=steps.root)
        half = pipeline(target).sizes["channel"]
    return half if count == 2 * half else count


def output_channel_names(work: Work, count: int, first: int) -> tuple[str, ...]:
    given, target = work.recipe.output.channels, work.samples[0].target
    if first == count or (given is not None and len(given) == count):
        return channel_names_of(given, target, count, "output")
    names = channel_names_of(given, target, first, "output")
    return (*names, *(f"{name} variance" for name in names))
