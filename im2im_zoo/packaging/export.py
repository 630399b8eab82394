"""From a trained network and its recipe to a bioimage.io package: measure, write, check, and only then appear.

Everything is written into a folder beside the output, which takes its name when the whole package is sound.
"""

import copy
import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from im2im_zoo.components import Component
from im2im_zoo.engines import open_engine
from im2im_zoo.errors import PackageError, ProcessingError
from im2im_zoo.networks import Call, Grid, as_call
from im2im_zoo.package import sha256
from im2im_zoo.packaging.architecture import libraries
from im2im_zoo.packaging.cover import write_comparison, write_cover
from im2im_zoo.packaging.description import (
    COMPARISON,
    DTYPES,
    Content,
    Measured,
    describe,
    file_name,
    postprocessing_of,
    preprocessing_of,
)
from im2im_zoo.packaging.drafts import missing_metadata
from im2im_zoo.packaging.geometry import centre, exact_scale, measure_geometry, network_grid
from im2im_zoo.packaging.grouping import describe_grouping, grouping_file, grouping_name, labels_of
from im2im_zoo.packaging.in_graph import InGraph, softmax_in_graph
from im2im_zoo.packaging.readme import write_readme
from im2im_zoo.packaging.sample import Sample, Steps, past_custom, run_on_grid
from im2im_zoo.packaging.tensors import choose_crop, write_sample_tensor, write_test_tensor
from im2im_zoo.packaging.validate import validate_package
from im2im_zoo.packaging.weights import FORMATS, OPSET, Weights, architecture_of, write_weights
from im2im_zoo.processing import fit
from im2im_zoo.processing.custom_code import source_file
from im2im_zoo.processing.grouping import Grouping
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe_file import dump_recipe

if TYPE_CHECKING:
    from torch import nn

_COVER_PART = {2: (1024, 1024), 3: (32, 256, 256)}


@dataclass(frozen=True, slots=True)
class Exported:
    """A package that was written: its folder, its zip if there is one, and what a person should see to.

    `warnings` are lines: metadata that only a person knows, weight formats that were left out and why, and a halo
    that is less than the network needs.
    """

    folder: Path
    zip_path: Path | None
    warnings: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class _Export:
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
    portable: Mapping[str, object] | None = None
    grid: Grid | None = None
    opset: int = OPSET

    @property
    def grouping(self) -> Grouping | None:
        """That of the recipe, whose file is in the folder."""
        name = grouping_name(self.recipe)
        if name is None:
            return None
        return Grouping(**describe_grouping(self.recipe, sha256(self.folder / name)))


def export_package(
    network: "nn.Module",
    recipe: Recipe,
    samples: Sequence[Sample],
    output: Path,
    *,
    figures: Mapping[str, float],
    baselines: Mapping[str, float] | None = None,
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
) -> Exported:
    """Write a package that is valid, and that gives the same with each of its weight formats.

    Metadata that only a person knows may be missing (`missing_metadata` lists it); the package is sound without.

    Args:
        network: trained; it is copied to the CPU and used in evaluation mode.
        recipe: what it was trained with; or, for a portable one, what it is run with.
        samples: held-out images; the first makes the test tensors and the cover.
        output: the folder to make.
        figures: measured values by name, for the README and the RDF.
        baselines: what is reached without the model, by the same names.
        weights: formats to write; one that cannot be written truthfully is left out, and the README says why.
        architecture: what the network was built from (default: the recipe's network).
        provenance: run, data hash, versions, ...; kept in the RDF. `timestamp` (ISO 8601) is the package's.
        zip_path: also write the package as a zip; the same package makes the same bytes.
        overwrite: replace what is at `output` and `zip_path`.
        root: folder of the files of custom operations, and of networks, that are the recipe's own.
        allow_code: consent to run those of operations.
        trusted: packages whose code the architecture and the grouping may import, see `components.resolve`.
        trained_with, portable: of a portable model, the recipe that it was trained with, which the package keeps, and what
            it says of how it became so (`portable.Portable.record`).
        grid: what `network_grid` gives for the network and the weights; measured if it is not given.
        opset: of the ONNX weights.
    Raises:
        PackageError: something is in the way, no samples, the network cannot be packaged, or the result is not
            sound. Nothing is left at `output` or `zip_path` then.
    """
    _check_free(output, zip_path, overwrite)
    if not samples:
        raise PackageError("a package needs at least one held-out image for its test tensors: give `samples`")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        folder.chmod(0o755)
        plain = copy.deepcopy(network).cpu().eval()
        made = softmax_in_graph(InGraph(plain, recipe, architecture or recipe.network))
        trained_with = trained_with or recipe
        plain, recipe = made.network, made.recipe
        steps = Steps.of(recipe, root=root, allow_code=allow_code)
        work = _Export(
            plain,
            as_call(plain),
            recipe,
            samples,
            folder,
            steps,
            weights,
            made.architecture,
            trusted,
            trained_with,
            portable,
            grid,
            opset,
        )
        rdf = _write(work, figures, baselines or {}, provenance or {})
        _check_sound(folder, allow_code=allow_code or "pytorch_state_dict" in weights)
        if zip_path is not None:
            _zip(folder, zip_path, overwrite=overwrite)
        _replace(folder, output)
    except OSError as error:
        raise PackageError(
            f"{output} cannot be written: {error}; is the disk full? Nothing was left there"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(output, zip_path, _warnings(recipe, rdf))


def _write(
    work: _Export,
    figures: Mapping[str, float],
    baselines: Mapping[str, float],
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    """Write all files of the package into its folder, the RDF last, and return the content of the RDF."""
    recipe, folder = work.recipe, work.folder
    _copy_custom(work)
    raw_dtype = _common_dtype([s.input.dtype for s in work.samples])
    work = replace(work, samples=[past_custom(s, work.steps) for s in work.samples])
    dtype = _common_dtype([s.input.dtype for s in work.samples])
    # From here on the package's own operations are used: what is tested is what is shipped.
    steps = replace(work.steps, preprocessing=preprocessing_of(recipe))
    work = replace(work, steps=steps)
    pixel_size = _pixel_size(work.samples)
    declared = {axis: exact_scale(size) for axis, size in pixel_size.items()}
    scales = [declared.get(a, 1.0) for a in recipe.space]
    grid = work.grid or network_grid(work.network, recipe, work.samples, work.formats)
    geometry = measure_geometry(work.call, work.network, grid, steps, work.samples, scales)
    crop = choose_crop(work.samples[0], geometry, recipe.space)
    raw = work.call(steps.prepare(crop.input).to_numpy())
    result_dtype = _result_dtype(steps.finish(raw, crop.input).dtype)
    steps = replace(steps, postprocessing=postprocessing_of(recipe, result_dtype))
    work = replace(work, steps=steps)
    test_input = write_test_tensor(
        folder / "test_input.npy", crop.input.expand_dims("batch").transpose(*steps.axes), dtype
    )
    test_output = write_test_tensor(folder / "test_output.npy", steps.finish(raw, crop.input), result_dtype)
    write_sample_tensor(folder / "sample_input.tif", test_input, pixel_size)
    write_sample_tensor(folder / "sample_output.tif", test_output, pixel_size)
    weights = write_weights(
        work.network,
        folder,
        work.formats,
        grid=geometry.grid,
        channels=test_input.shape[1],
        tensors=(recipe.input.id, recipe.output.id),
        architecture=work.architecture,
        allow_code=work.packages,
        root=steps.root,
        opset=work.opset,
    )
    first = _target_channels(work, crop.target, test_output.shape[1])
    measured = Measured(
        raw_dtype=raw_dtype,
        input_dtype=dtype,
        output_dtype=result_dtype,
        input_channels=_channels(recipe.input.channels, work.samples[0].input, test_input.shape[1], "input"),
        output_channels=_output_channels(work, test_output.shape[1], first),
        pixel_size_um=declared,
        geometry=geometry,
        parameters=sum(p.numel() for p in work.network.parameters()),
        tolerance=_tolerance(work, weights, steps.prepare(crop.input).to_numpy(), crop.input, test_output),
    )
    _write_cover(work, geometry.grid, first, has_target=bool(figures))
    (folder / "recipe.yaml").write_text(
        dump_recipe(_without_folders(work.trained_with or recipe)), encoding="utf-8"
    )
    if "pytorch_state_dict" in weights.files:
        (folder / "environment.yaml").write_text(
            _environment(libraries(weights.architecture or {}, folder)), encoding="utf-8"
        )
    described = {"figures": figures, "baselines": baselines, "provenance": provenance}
    rdf = describe(recipe, measured, weights, _content(folder), portable=work.portable, **described)  # type: ignore[arg-type]
    readme = write_readme(recipe, rdf, samples=len(work.samples), **described)  # type: ignore[arg-type]
    (folder / "README.md").write_text(readme, encoding="utf-8")
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=110)
    (folder / "rdf.yaml").write_text(text, encoding="utf-8")
    return rdf


def _warnings(recipe: Recipe, rdf: Mapping[str, Any]) -> tuple[str, ...]:
    ours = rdf["config"]["im2im_zoo"]
    lines = [f"{finding.field}: {finding.message}" for finding in missing_metadata(recipe)]
    lines += [
        f"no {name} weights were written: {reason}" for name, reason in ours["weights_left_out"].items()
    ]
    fixed = {a["id"]: a["size"] for a in rdf["inputs"][0]["axes"] if isinstance(a.get("size"), int)}
    if fixed:
        sizes = " x ".join(f"{axis} {size}" for axis, size in fixed.items())
        lines.append(
            f"the network, or its exported form, takes images of {sizes} alone, the data.patch_size of its training: larger ones "
            "are predicted in tiles of that size, which are blended"
        )
    lines += [
        f"the halo along {axis} is {ours['halo'][axis]} voxels, not measured to suffice ({source})"
        for axis, source in ours["halo_source"].items()
        if source != "measured"
    ]
    return tuple(lines)


def _tolerance(
    work: _Export, weights: Weights, prepared: NDArray[Any], image: Any, expected: NDArray[Any]
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


def _write_cover(work: _Export, grid: Any, channels: int, *, has_target: bool) -> None:
    sample = work.samples[0]
    part = centre(sample.input, work.recipe.space, _COVER_PART[len(work.recipe.space)])
    raw = run_on_grid(work.call, work.steps.prepare(sample.input, part).to_numpy(), grid)
    image = sample.input.isel(part)
    result = work.steps.finish(raw, image).isel(batch=0, channel=slice(channels))
    if work.grouping is not None:
        result = labels_of(work.grouping.load(work.folder, allow_code=True), result).expand_dims("channel")
    write_cover(work.folder / "cover.png", image, result, work.recipe.output.task)
    if has_target:
        target = sample.target.isel(part)
        write_comparison(work.folder / COMPARISON, image, result, target, work.recipe.output.task)


def _copy_custom(work: _Export) -> None:
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


def _without_folders(recipe: Recipe) -> Recipe:
    """The recipe with the names of its folders alone: where they are is nobody else's business."""
    data, network = recipe.data, recipe.network
    data = data.model_copy(update={"path": Path(data.path.name or ".")})
    if network.init_from is not None:
        network = network.model_copy(update={"init_from": Path(network.init_from.name)})
    return recipe.model_copy(update={"data": data, "network": network})


def _target_channels(work: _Export, target: Any, count: int) -> int:
    """How many of the output's channels are the target's: all, or the first half, whose variances follow."""
    if work.grouping is not None:  # they are maps
        return count
    half: int = target.sizes["channel"]
    if count == 2 * half and work.recipe.target.preprocessing:  # it may make channels, e.g. one of each class
        steps = work.steps
        pipeline = fit(work.recipe.target.preprocessing, target, allow_code=steps.allow_code, root=steps.root)
        half = pipeline(target).sizes["channel"]
    return half if count == 2 * half else count


def _output_channels(work: _Export, count: int, first: int) -> tuple[str, ...]:
    given, target = work.recipe.output.channels, work.samples[0].target
    if first == count or (given is not None and len(given) == count):
        return _channels(given, target, count, "output")
    names = _channels(given, target, first, "output")
    return (*names, *(f"{name} variance" for name in names))


def _channels(given: Sequence[str] | None, image: Any, count: int, prefix: str) -> tuple[str, ...]:
    if given is not None:
        if len(given) != count:
            raise PackageError(
                f"the recipe names {len(given)} channels for the {prefix} ({', '.join(given)}), but it has {count}: "
                f"correct `{prefix}.channels`"
            )
        return tuple(given)
    if "channel" in image.coords and image.sizes["channel"] == count:
        return tuple(str(c) for c in image.coords["channel"].to_numpy())
    return tuple(f"{prefix}{i}" for i in range(count))


def _pixel_size(samples: Sequence[Sample]) -> dict[str, float]:
    """That of the first sample that has one, to six digits."""
    known = (s.input.attrs.get("pixel_size_um") or {} for s in samples)
    return {axis: float(f"{size:.6g}") for axis, size in next((k for k in known if k), {}).items()}


def _common_dtype(dtypes: Sequence[Any]) -> str:
    name = np.result_type(*dtypes).name
    return name if name in DTYPES else "float32"


def _result_dtype(dtype: Any) -> str:
    name = np.dtype(dtype).name
    return name if name in DTYPES and name != "float64" else "float32"


def _environment(names: Sequence[str]) -> str:
    """A conda environment for a state dict whose network needs libraries, with the versions of here."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    import torch

    pip: list[str] = []
    for library in set(names) - {"torch"}:
        try:
            pip.append(f"{library}=={version(library)}")
        except PackageNotFoundError:  # its distribution has another name; looking through all of them is slow
            found = packages_distributions().get(library, [])
            pip += [f"{distribution}=={version(distribution)}" for distribution in found]
    content: dict[str, Any] = {
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": ["python>=3.11", f"pytorch=={torch.__version__.split('+')[0]}", "pip"],
    }
    if pip:
        content["dependencies"].append({"pip": sorted(set(pip))})
    return yaml.safe_dump(content, sort_keys=False)


def _content(folder: Path) -> Content:
    return Content({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())})


def _check_sound(folder: Path, *, allow_code: bool) -> None:
    """Raise if the package that was just written is not sound."""
    report = validate_package(folder, allow_code=allow_code)
    if not report.sound:
        problems = "\n".join(f"  {f}" for f in report.of("error"))
        raise PackageError(f"the package would not be sound, so it is not written:\n{problems}")


def _check_free(output: Path, zip_path: Path | None, overwrite: bool) -> None:
    for path in (output, zip_path):
        if path is not None and path.exists() and not overwrite:
            raise PackageError(
                f"{path} exists: give another name, or overwrite=True (--overwrite) to replace it"
            )
    if output.is_file():
        raise PackageError(f"{output} is a file: name a folder for the package")
    if output.is_dir() and any(output.iterdir()) and not (output / "rdf.yaml").is_file():
        raise PackageError(
            f"{output} is a folder that holds something else than a package: it is not replaced"
        )
    if not re.search(r"\w", output.name):
        raise PackageError(f"{output} names no folder for the package: give one")


def _zip(folder: Path, path: Path, *, overwrite: bool) -> None:
    """Write the folder as a zip whose bytes depend on its files alone: sorted, and all of one time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                entry = zipfile.ZipInfo(file.name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, file.read_bytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _replace(folder: Path, output: Path) -> None:
    """Give the finished folder its name; what was there is removed only after that has succeeded."""
    if not output.exists():
        folder.rename(output)
        return
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    output.rename(old)
    try:
        folder.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
