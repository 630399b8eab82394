"""Export of a trained network and its recipe as a bioimage.io package.

All files are written into a temporary folder beside the output, measured and validated there, and the folder is renamed only
if the package is valid. `measure` is called with that folder, a complete package without metrics.
"""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from numpy.typing import NDArray

from im2im_zoo.core.atomic import hidden_sibling
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.networks import Grid, as_call
from im2im_zoo.packaging.export.architecture import libraries
from im2im_zoo.packaging.export.environment import conda_environment
from im2im_zoo.packaging.export.examples import examples
from im2im_zoo.packaging.export.geometry import network_grid
from im2im_zoo.packaging.export.image_facts import channel_names_of, common_dtype, pixel_size_of, result_dtype
from im2im_zoo.packaging.export.in_graph import InGraph, over_all_channels, processing_in_graph
from im2im_zoo.packaging.export.output_folder import check_free, deliver, remove_leftovers_of
from im2im_zoo.packaging.export.rdf.content import Content, Measured, Metrics
from im2im_zoo.packaging.export.rdf.description import describe
from im2im_zoo.packaging.export.rdf.operations import postprocessing_of, preprocessing_of
from im2im_zoo.packaging.export.readme import write_readme
from im2im_zoo.packaging.export.sample import Sample, Steps, past_custom
from im2im_zoo.packaging.export.steps import (
    ExportContext,
    border_of,
    copy_own_files,
    crop_to_show,
    declared_tolerance,
    measure_crop,
    moved_into_graph,
    output_channel_names,
    target_channels,
    write_comparison_picture,
    write_cover_picture,
)
from im2im_zoo.packaging.export.tensors import Crop, write_sample_tensor, write_test_tensor
from im2im_zoo.packaging.export.usefulness import compare_with_baselines
from im2im_zoo.packaging.export.weights import FORMATS, OPSET, Weights, write_weights
from im2im_zoo.packaging.validation.drafts import missing_metadata
from im2im_zoo.packaging.validation.validate import validate_package
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.recipe.measured import MeasuredSide, find_open

if TYPE_CHECKING:
    from torch import nn

Measure = Callable[[Path], Metrics]


@dataclass(frozen=True, slots=True)
class Exported:
    """Exported package.

    Attributes:
        folder, zip_path: paths of the package, and of its zip if there is one.
        warnings: one line each: a model that is not better than a trivial method, missing metadata, weight formats that were left out with the reason, and a halo that is
            smaller than the network needs.
        metrics: metrics in the README and the RDF, unrounded.
    """

    folder: Path
    zip_path: Path | None
    warnings: tuple[str, ...]
    metrics: Metrics = field(default_factory=Metrics)

    def __fspath__(self) -> str:
        return str(self.folder)


def export_package(
    network: "nn.Module",
    recipe: Recipe,
    samples: Sequence[Sample],
    output: Path,
    *,
    figures: Mapping[str, float] | None = None,
    baselines: Mapping[str, float] | None = None,
    measure: Measure | None = None,
    weights: Sequence[str] = FORMATS,
    architecture: Component | None = None,
    provenance: Mapping[str, object] | None = None,
    zip_path: Path | None = None,
    overwrite: bool = False,
    root: Path | None = None,
    allow_code: bool = False,
    trusted: Sequence[str] = (),
    trained_with: Recipe | None = None,
    portable: Mapping[str, object] | None = None,
    grid: Grid | None = None,
    opset: int = OPSET,
    mirrored_test_output: bool = False,
    complete: Callable[[Path], None] | None = None,
) -> Exported:
    """Write a valid package whose weight formats all give the same result.

    Metadata that does not follow from the recipe may be missing (`missing_metadata` lists it); the package is valid without.

    Args:
        network: trained; it is copied to the CPU and used in evaluation mode.
        recipe: recipe of the training, or the changed recipe of a portable model.
        samples: held-out images; the first makes the test tensors and the cover.
        output: folder to create.
        figures: metrics by name, for the README and the RDF.
        baselines: metrics of trivial methods, by the same names.
        measure: returns the metrics of the package in a folder, which are used instead of `figures`, `baselines` and `portable`.
            The folder is the complete package without metrics.
        weights: formats to write; one that cannot reproduce the network is left out, with the reason in the README.
        architecture: component that built the network (default: the recipe's network).
        provenance: run, data hash, versions, ...; kept in the RDF. `timestamp` (ISO 8601) is the package's.
        zip_path: also write the package as a zip; the same package makes the same bytes.
        overwrite: replace existing files at `output` and `zip_path`.
        root: folder of the recipe's own custom operations and networks.
        allow_code: consent to run these custom operations.
        trusted: packages whose code the architecture and the grouping may import, see `components.resolve_component`.
        trained_with, portable: for a portable model, the recipe of its training, which the package contains, and the record of
            its changes (`portable.Portable.record`).
        grid: result of `network_grid` for the network and the weights (default: it is measured).
        opset: opset of the ONNX weights.
        mirrored_test_output: also write the output for the test input mirrored by the halo, as `test_output_mirrored.npy`.
        complete: called with the folder of the valid package, before it is moved to `output`; it may write `try.html` there.

    Raises:
        PackageError: the output exists, there are no samples, the network cannot be packaged, or the result is
            invalid. Nothing is left at `output` or `zip_path` then.
        Im2ImError: `measure` fails.
    """
    check_free(output, zip_path, overwrite)
    if not samples:
        raise PackageError("a package needs at least one held-out image for its test tensors: give `samples`")
    sides: tuple[MeasuredSide, ...] = ("input", "target")
    for side in sides:
        if find_open(recipe, side) is not None:
            raise PackageError(
                f"{side}.preprocessing has a standardisation without mean and std, which training measures: export the recipe "
                "of the run, or give the numbers"
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of(output, zip_path)
    folder = hidden_sibling(output, "partial")
    folder.mkdir()
    try:
        plain = copy.deepcopy(network).cpu().eval()
        trained_with = trained_with or recipe
        channels = samples[0].input.sizes["channel"]
        trained = InGraph(plain, over_all_channels(recipe, channels), architecture or recipe.network)
        in_graph = processing_in_graph(trained)
        plain, recipe = in_graph.network, in_graph.recipe
        steps = Steps.of(recipe, root=root, allow_code=allow_code)
        context = ExportContext(
            plain,
            as_call(plain),
            recipe,
            samples,
            folder,
            steps,
            weights,
            in_graph.architecture,
            trusted,
            trained_with,
            grid or network_grid(trained.network, recipe, samples, weights),
            opset,
            trained,
            in_graph,
            mirrored_test_output,
        )
        stated = Metrics(figures or {}, baselines or {}, portable)
        rdf, metrics = _write(context, provenance or {}, stated, measure)
        _check_valid(folder, allow_code=allow_code or "pytorch_state_dict" in weights)
        if complete is not None:
            complete(folder)
        deliver(folder, output, zip_path)
    except OSError as error:
        raise PackageError(
            f"{output} cannot be written: {error}; is the disk full? Nothing was left there"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(output, zip_path, _warnings(recipe, rdf, metrics), metrics)


def _write(
    context: ExportContext, provenance: Mapping[str, object], stated: Metrics, measure: Measure | None
) -> tuple[dict[str, Any], Metrics]:
    """Write all files of the package into its folder, the RDF last, and return the content of the RDF and its metrics."""
    recipe, folder = context.recipe, context.folder
    copy_own_files(context)
    raw_dtype = common_dtype([s.input.dtype for s in context.samples])
    # From here on the package's own operations are used, so that the test tensors match the package.
    steps = replace(context.steps, preprocessing=preprocessing_of(recipe))
    context = replace(context, samples=[past_custom(s, context.steps) for s in context.samples], steps=steps)
    pixel_size = pixel_size_of(context.samples)
    geometry, crop = measure_crop(context, context.grid)
    context, test = _write_tensors(context, crop, pixel_size)
    weights = _write_weights(context, geometry.grid, test.prepared)
    first = target_channels(context, crop.target, test.output.shape[1])
    measured = Measured(
        raw_dtype=raw_dtype,
        input_dtype=test.input.dtype.name,
        output_dtype=test.output.dtype.name,
        input_channels=channel_names_of(
            recipe.input.channels, context.samples[0].input, test.input.shape[1], "input"
        ),
        output_channels=output_channel_names(context, test.output.shape[1], first),
        pixel_size_um=pixel_size,
        geometry=geometry,
        parameters=sum(p.numel() for p in context.network.parameters()),
        tolerance=declared_tolerance(context, weights, test.prepared, crop.input, test.output),
        in_graph=moved_into_graph(context, crop.input, test.output),
        border=border_of(context, geometry.halo, test.prepared, crop.input, test.output),
    )
    shown = crop_to_show(context, geometry.grid, first)
    write_cover_picture(context, shown)
    _write_text(folder / "recipe.yaml", dump_recipe(_without_folders(context.trained_with or recipe)))
    if "pytorch_state_dict" in weights.files:
        needed = libraries(weights.architecture or {}, folder)
        _write_text(folder / "environment.yaml", conda_environment(needed))
    metrics = stated
    if measure is not None:
        _write_description(context, Metrics(), provenance, measured, weights)
        metrics = measure(folder)
    if metrics.values:
        write_comparison_picture(context, shown)
    return _write_description(context, metrics, provenance, measured, weights), metrics


@dataclass(frozen=True, slots=True)
class _Test:
    """Test tensors as written, and the preprocessed input."""

    input: NDArray[Any]
    output: NDArray[Any]
    prepared: NDArray[Any]


def _write_tensors(
    context: ExportContext, crop: Crop, pixel_size: dict[str, float]
) -> tuple[ExportContext, _Test]:
    """Write test and sample tensors; the returned context's postprocessing ends with a cast to their dtype."""
    recipe, folder, steps = context.recipe, context.folder, context.steps
    dtype = common_dtype([s.input.dtype for s in context.samples])
    prepared = steps.prepare(crop.input).to_numpy()
    raw = context.call(prepared)
    result = result_dtype(steps.finish(raw, crop.input).dtype)
    steps = replace(steps, postprocessing=postprocessing_of(recipe, result))
    image = crop.input.expand_dims("batch").transpose(*steps.axes)
    source = write_test_tensor(folder / "test_input.npy", image, dtype)
    output = write_test_tensor(folder / "test_output.npy", steps.finish(raw, crop.input), result)
    write_sample_tensor(folder / "sample_input.tif", source, pixel_size)
    write_sample_tensor(folder / "sample_output.tif", output, pixel_size)
    return replace(context, steps=steps), _Test(source, output, prepared)


def _write_weights(context: ExportContext, grid: Grid, prepared: NDArray[Any]) -> Weights:
    return write_weights(
        context.network,
        context.folder,
        context.formats,
        grid=grid,
        image=prepared,
        tensors=(context.recipe.input.id, context.recipe.output.id),
        architecture=context.architecture,
        allow_code=context.packages,
        root=context.steps.root,
        opset=context.opset,
    )


def _write_description(
    context: ExportContext,
    metrics: Metrics,
    provenance: Mapping[str, object],
    measured: Measured,
    weights: Weights,
) -> dict[str, Any]:
    """Write the examples, the README and the RDF, which has the hashes of all other files."""
    recipe, folder = context.recipe, context.folder
    rdf = describe(recipe, measured, weights, _content(folder), metrics, provenance)
    for name, text in examples(rdf).items():
        _write_text(folder / name, text)
    rdf = describe(recipe, measured, weights, _content(folder), metrics, provenance)
    _write_text(folder / "README.md", write_readme(recipe, rdf, metrics, provenance, len(context.samples)))
    _write_text(folder / "rdf.yaml", yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=110))
    return rdf


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _warnings(recipe: Recipe, rdf: Mapping[str, Any], metrics: Metrics) -> tuple[str, ...]:
    ours = rdf["config"]["im2im_zoo"]
    lines = [f"{finding.field}: {finding.message}" for finding in missing_metadata(recipe)]
    lines += [
        f"no {name} weights were written: {reason}" for name, reason in ours["weights_left_out"].items()
    ]
    fixed = {a["id"]: a["size"] for a in rdf["inputs"][0]["axes"] if isinstance(a.get("size"), int)}
    if fixed:
        sizes = " x ".join(f"{axis} {size}" for axis, size in fixed.items())
        lines.append(
            f"the network, or its exported form, accepts images of {sizes} only, the data.patch_size of its training; larger ones "
            "are predicted in blended tiles of that size"
        )
    lines += [
        f"the halo along {axis} is {ours['halo'][axis]} voxels, which may be too small ({source})"
        for axis, source in ours["halo_source"].items()
        if source != "measured"
    ]
    if not_better := compare_with_baselines(metrics):
        lines.append(
            f"{not_better} Train longer or on more images, and look at run.html, before you give it to others"
        )
    return tuple(lines)


def _without_folders(recipe: Recipe) -> Recipe:
    """Return the recipe with the names of its folders only, without private paths."""
    data, network = recipe.data, recipe.network
    data = data.model_copy(update={"path": Path(data.path.name or ".")})
    if network.init_from is not None:
        network = network.model_copy(update={"init_from": Path(network.init_from.name)})
    return recipe.model_copy(update={"data": data, "network": network})


def _content(folder: Path) -> Content:
    return Content({p.name: sha256(p) for p in sorted(folder.iterdir())})


def _check_valid(folder: Path, *, allow_code: bool) -> None:
    """Raise `PackageError` if the package that was just written is invalid."""
    report = validate_package(folder, allow_code=allow_code)
    if errors := report.of("error"):
        problems = "\n".join(f"  {f}" for f in errors)
        raise PackageError(f"the package would be invalid, so it is not written:\n{problems}")
