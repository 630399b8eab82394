"""Steps of an export that `export` calls in order: own files, channel names, pictures, the tolerance."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import open_engine
from im2im_zoo.images.colours import names_of
from im2im_zoo.instances.grouping import Grouping
from im2im_zoo.networks import Call, Grid, as_call, effective_halo
from im2im_zoo.packaging.comparison import TOLERANCE, difference
from im2im_zoo.packaging.export.border import MIRRORED_TEST_OUTPUT, Border, compare_at_border, mirrored_output
from im2im_zoo.packaging.export.cover import write_comparison, write_cover
from im2im_zoo.packaging.export.geometry import Geometry, centre, declare, measure_geometry
from im2im_zoo.packaging.export.image_facts import channel_names_of
from im2im_zoo.packaging.export.in_graph import InGraph
from im2im_zoo.packaging.export.rdf.content import COMPARISON, MovedIntoGraph
from im2im_zoo.packaging.export.rdf.operations import file_name, postprocessing_of, preprocessing_of
from im2im_zoo.packaging.export.sample import Sample, Steps
from im2im_zoo.packaging.export.tensors import Crop, choose_crop
from im2im_zoo.packaging.export.weights import Weights, architecture_of
from im2im_zoo.packaging.grouping import describe_grouping, grouping_file, grouping_name, labels_of
from im2im_zoo.processing import fit
from im2im_zoo.processing.custom_code import source_file
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component

if TYPE_CHECKING:
    from torch import nn

_COVER_PART = {2: (1024, 1024), 3: (32, 256, 256)}


@dataclass(frozen=True)
class ExportContext:
    """Inputs that the steps of an export share; `trained` is the network before its processing moved into its graph,
    `in_graph` after."""

    network: "nn.Module"
    call: Call
    recipe: Recipe
    samples: Sequence[Sample]
    folder: Path
    steps: Steps
    formats: Sequence[str]
    architecture: Component
    packages: Sequence[str]
    trained_with: Recipe | None
    grid: Grid
    opset: int
    trained: InGraph
    in_graph: InGraph
    mirrored_test_output: bool = False

    @property
    def grouping(self) -> Grouping | None:
        """Grouping of the recipe, whose file is in the folder."""
        name = grouping_name(self.recipe)
        if name is None:
            return None
        return Grouping(**describe_grouping(self.recipe, sha256(self.folder / name)))


def measure_crop(context: ExportContext, grid: Grid) -> tuple[Geometry, Crop]:
    """Return the sizes and the halo to declare, and the part of the first sample that becomes the test tensors.

    The required halo depends on the image, so it is measured on the test tensors as well, which others check it with, and
    raised if they require more.

    Args:
        grid: accepted sizes of the network.
    """
    steps, space = context.steps, context.recipe.space
    measured = measure_geometry(context.call, context.network, grid, steps, context.samples)
    least = [0] * len(space)
    while True:
        geometry = declare(grid, measured, least)
        crop = choose_crop(context.samples[0], geometry, space)
        halo = effective_halo(
            context.call, steps.prepare(crop.input).to_numpy(), Grid(geometry.min, geometry.step)
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
    context: ExportContext, weights: Weights, prepared: NDArray[Any], image: Any, expected: NDArray[Any]
) -> dict[str, float] | None:
    """Return the RDF's tolerance: ten times the difference between the formats here, within the limits of the spec.

    It is None if the test output has no positive value: the spec's limit, a hundredth of the largest, has no room then.
    """
    largest = float(expected.max())
    if largest <= 0:
        return None
    worst, mismatched = 0.0, 0.0
    for name, path in weights.files.items():
        described = weights.architecture if name == "pytorch_state_dict" else None
        architecture = architecture_of(described) if described else None
        engine = open_engine(name, path, architecture=architecture, root=context.folder, allow_code=True)
        result = context.steps.finish(engine([prepared])[0], image).to_numpy()
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


def moved_into_graph(
    context: ExportContext, image: xr.DataArray, output: NDArray[Any]
) -> MovedIntoGraph | None:
    """Return the processing that moved into the graph, with the change of the test output; None if none did.

    Args:
        context: of the export.
        image: that of the test input.
        output: the test output.
    Raises:
        PackageError: the output changes by more than `TOLERANCE` of its largest value.
    """
    made, recipe = context.in_graph, context.trained.recipe
    if not made.moved_before and not made.moved_after:
        return None
    steps = replace(
        context.steps,
        preprocessing=preprocessing_of(recipe),
        postprocessing=postprocessing_of(recipe, output.dtype.name),
    )
    raw = as_call(context.trained.network)(steps.prepare(image).to_numpy())
    change = difference(output, steps.finish(raw, image).to_numpy())
    if not change <= TOLERANCE:
        raise PackageError(
            f"moving the processing around the network into its graph changes the test output by {change:.2g} of its largest "
            "value: its numbers are beyond the precision of float32; train with a smaller gain or offset"
        )
    return MovedIntoGraph(made.moved_before, made.moved_after, change)


def border_of(
    context: ExportContext,
    halo: Sequence[int],
    prepared: NDArray[Any],
    image: xr.DataArray,
    output: NDArray[Any],
) -> Border | None:
    """Compare the test output with that of an image mirrored by the halo, and write the latter if it is asked for.

    Args:
        context: of the export.
        halo: declared halo per space axis.
        prepared: input of the network that makes the test output.
        image: that of the test input.
        output: the test output.
    Returns:
        The comparison; None without a halo, where nothing is mirrored, or for a network of one size, which cannot be.
    """
    if not any(halo) or not all(context.grid.step):
        return None
    raw = mirrored_output(context.call, prepared, halo)
    mirrored = context.steps.finish(raw, image).to_numpy()
    if context.mirrored_test_output:
        np.save(context.folder / MIRRORED_TEST_OUTPUT, np.ascontiguousarray(mirrored, dtype=output.dtype))
    return compare_at_border(mirrored, output)


def write_cover_picture(context: ExportContext, shown: "Shown") -> None:
    """Write the cover of the package."""
    write_cover(context.folder / "cover.png", shown.input, shown.output, context.recipe.output.task)


def write_comparison_picture(context: ExportContext, shown: "Shown") -> None:
    """Write a picture of the cover's image and result beside its target."""
    task = context.recipe.output.task
    write_comparison(context.folder / COMPARISON, shown.input, shown.output, shown.target, task)


@dataclass(frozen=True)
class Shown:
    """A crop of a sample, without batch, and the network's output for it."""

    input: xr.DataArray
    output: xr.DataArray
    target: xr.DataArray


def crop_to_show(context: ExportContext, grid: Grid, channels: int) -> Shown:
    """Return the middle of the first sample, and the first `channels` of the output for it.

    The network runs on the crop at once: one that takes a single size is shown with a crop of that size.
    """
    sample, space = context.samples[0], context.recipe.space
    limits = [
        most if step else min(most, size)
        for most, size, step in zip(_COVER_PART[len(space)], grid.min, grid.step, strict=True)
    ]
    part = centre(sample.input, space, limits)
    raw = _output_of_crop(context.call, context.steps.prepare(sample.input, part).to_numpy(), grid)
    image = sample.input.isel(part)
    result = context.steps.finish(raw, image).isel(batch=0, channel=slice(channels))
    if context.grouping is not None:
        result = labels_of(context.grouping.load(context.folder, allow_code=True), result).expand_dims(
            "channel"
        )
    recipe, target = context.recipe, sample.target.isel(part)
    names = recipe.output.channels or names_of(target)
    return Shown(_named(image, recipe.input.channels), _named(result, names), _named(target, names))


def _named(image: xr.DataArray, names: Sequence[str] | None) -> xr.DataArray:
    """Return an image whose channels have names, so that red, green and blue are shown in their own colours."""
    if names is None or len(names) != image.sizes["channel"]:
        return image
    return image.assign_coords(channel=list(names))


def _output_of_crop(call: Call, array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return the network's output for a crop (batch, channel, *space), which is mirrored at its end to an accepted size."""
    space = array.shape[2:]
    missing = [(0, w - n) for w, n in zip(grid.ceil(space), space, strict=True)]
    output = call(np.ascontiguousarray(np.pad(array, [(0, 0), (0, 0), *missing], mode="reflect")))
    return output[(slice(None), slice(None), *(slice(n) for n in space))]


def copy_own_files(context: ExportContext) -> None:
    """Copy the files of custom operations and of the grouping into the package."""
    grouping = grouping_file(context.recipe, context.packages)
    if grouping is not None:
        shutil.copyfile(grouping, context.folder / str(grouping_name(context.recipe)))
    for operation in (*context.recipe.input.preprocessing, *context.recipe.output.postprocessing):
        if operation.id != "custom":
            continue
        try:
            path = source_file(operation, context.steps.root or Path())
        except ProcessingError as error:
            raise PackageError(str(error)) from error
        target = context.folder / file_name(str(operation.source))
        if target.exists() and target.read_bytes() != path.read_bytes():
            raise PackageError(
                f"two custom operations, or one and the grouping, have different files named {target.name}: rename one"
            )
        shutil.copyfile(path, target)


def target_channels(context: ExportContext, target: Any, count: int) -> int:
    """Return how many of the output's channels are compared with the target: all, or the first half if variances follow."""
    if context.grouping is not None:  # they are maps
        return count
    half: int = target.sizes["channel"]
    if (
        count == 2 * half and context.recipe.target.preprocessing
    ):  # it may make channels, e.g. one of each class
        steps = context.steps
        pipeline = fit(
            context.recipe.target.preprocessing, target, allow_code=steps.allow_code, root=steps.root
        )
        half = pipeline(target).sizes["channel"]
    return half if count == 2 * half else count


def output_channel_names(context: ExportContext, count: int, first: int) -> tuple[str, ...]:
    """Return the names of `count` output channels, of which those after `first` are variances."""
    given, target = context.recipe.output.channels, context.samples[0].target
    if first == count or (given is not None and len(given) == count):
        return channel_names_of(given, target, count, "output")
    names = channel_names_of(given, target, first, "output")
    return (*names, *(f"{name} variance" for name in names))
