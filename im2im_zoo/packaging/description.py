"""The RDF of a package: a recipe and what was measured, as the content of a spec 0.5 model description.

Everything explicit: operations, their axes and arguments are written out, since what the format fills in by itself
(a cast to the input's dtype, statistics over the batch) is not what was trained. Writes no file.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.packaging.drafts import draft_citations, draft_description, draft_tags
from im2im_zoo.packaging.format_version import OLDEST, channel_names, oldest_format
from im2im_zoo.packaging.geometry import Geometry
from im2im_zoo.packaging.grouping import describe_grouping, grouping_name
from im2im_zoo.packaging.weights import Weights
from im2im_zoo.processing import Operation
from im2im_zoo.processing.before_rdf import split_custom
from im2im_zoo.recipe import Recipe

DTYPES = (
    "float32",
    "float64",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "bool",
)

COMPARISON = "validation.png"


@dataclass(frozen=True)
class Measured:
    """What the images and the network say: dtypes and channel names of both tensors, sizes, pixel sizes.

    `raw_dtype` is that of the images, `input_dtype` that of the RDF's tensor, which is past the custom operations.
    `tolerance` is the RDF's reproducibility tolerance, None if there is none to declare.
    """

    raw_dtype: str
    input_dtype: str
    output_dtype: str
    input_channels: tuple[str, ...]
    output_channels: tuple[str, ...]
    pixel_size_um: Mapping[str, float]
    geometry: Geometry
    parameters: int
    tolerance: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Content:
    """Names of the files of the package, relative to it, and their SHA-256."""

    hashes: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> dict[str, str]:
        """A file as the RDF refers to it."""
        return {"source": name, "sha256": self.hashes[name]}


def preprocessing_of(recipe: Recipe) -> list[Operation]:
    """The recipe's preprocessing, past the custom operations, as the RDF spells it out: it starts and ends with a cast.

    Unless told otherwise, readers of the format cast the image to the declared dtype first (a float image given to a
    uint16 model would become zeros), and the preprocessed one to it again at the end.
    """
    steps: list[Operation] = copy.deepcopy(split_custom(recipe.input.preprocessing)[1])
    if not steps or steps[0].id != "ensure_dtype":
        steps.insert(0, _cast("float32"))
    if steps[-1].id != "ensure_dtype":
        steps.append(_cast("float32"))
    return steps


def postprocessing_of(recipe: Recipe, output_dtype: str) -> list[Operation]:
    """The recipe's postprocessing as the package spells it out: it ends with a cast."""
    steps: list[Operation] = copy.deepcopy(list(recipe.output.postprocessing))
    if not steps or steps[-1].id not in ("ensure_dtype", "binarize"):
        steps.append(_cast(output_dtype))
    return steps


def describe(
    recipe: Recipe,
    measured: Measured,
    weights: Weights,
    content: Content,
    *,
    figures: Mapping[str, float],
    baselines: Mapping[str, float],
    provenance: Mapping[str, object],
    portable: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The RDF as plain values, ready for YAML. See `export` for the arguments."""
    package = recipe.package
    rdf: dict[str, Any] = {
        "format_version": OLDEST,
        "type": "model",
        "name": _ascii_name(recipe.name),
        "description": package.description or draft_description(recipe),
        "version": package.version,
        "timestamp": str(provenance.get("timestamp") or datetime.now(UTC).isoformat(timespec="seconds")),
        "authors": [_plain(a) for a in package.authors],
        "maintainers": [_plain(m) for m in package.maintainers],
        "cite": draft_citations(recipe),
        "license": package.license,
        "tags": draft_tags(recipe),
        "git_repo": package.git_repo,
        # Names alone: bioimageio.spec before 0.5.11 and QuPath refuse them with hashes.
        "documentation": "README.md",
        "covers": ["cover.png"],
        "attachments": _attachments(recipe, content),
        "inputs": [_input(recipe, measured, content)],
        "outputs": [_output(recipe, measured, content)],
        "weights": _weights(weights, content),
        "config": _config(recipe, measured, weights, content, figures, baselines, provenance),
    }
    if portable is not None:
        rdf["config"]["im2im_zoo"]["portable"] = _yaml_value(portable)
    if package.training_data and _is_id(package.training_data):
        rdf["training_data"] = {"id": package.training_data}
    if package.parent:
        rdf["parent"] = {"id": package.parent}
    rdf = {key: value for key, value in rdf.items() if value not in (None, [])}
    return {**rdf, "format_version": oldest_format(rdf)}


def _input(recipe: Recipe, measured: Measured, content: Content) -> dict[str, Any]:
    geometry = measured.geometry
    sizes: dict[str, Any] = {
        axis: {"min": m, "step": s} if s else m
        for axis, m, s in zip(recipe.space, geometry.min, geometry.step, strict=True)
    }
    axes: list[dict[str, Any]] = [
        {"type": "batch"},
        {"type": "channel", "id": "channel", "channel_names": channel_names(measured.input_channels)},
        *({"type": "space", "id": a, "size": sizes[a], **_scale(a, measured)} for a in recipe.space),
    ]
    return {
        "id": recipe.input.id,
        "axes": axes,
        "test_tensor": content.file("test_input.npy"),
        "sample_tensor": content.file("sample_input.tif"),
        "data": {"type": measured.input_dtype, "unit": "arbitrary unit"},
        "preprocessing": [_operation(o, content) for o in preprocessing_of(recipe)],
    }


def _output(recipe: Recipe, measured: Measured, content: Content) -> dict[str, Any]:
    axes: list[dict[str, Any]] = [
        {"type": "batch"},
        {"type": "channel", "id": "channel", "channel_names": channel_names(measured.output_channels)},
    ]
    for axis, halo in zip(recipe.space, measured.geometry.halo, strict=True):
        size = {"tensor_id": recipe.input.id, "axis_id": axis}
        axes.append({"type": "space", "id": axis, "size": size, **_scale(axis, measured)})
        if halo:
            axes[-1]["halo"] = halo
    data: dict[str, Any] = {"type": measured.output_dtype, "unit": "arbitrary unit"}
    named = [o.id for o in recipe.output.postprocessing if o.id != "ensure_dtype"]
    if named and named[-1] in ("sigmoid", "softmax"):
        data["range"] = [0.0, 1.0]
    return {
        "id": recipe.output.id,
        "axes": axes,
        "test_tensor": content.file("test_output.npy"),
        "sample_tensor": content.file("sample_output.tif"),
        "data": data,
        "postprocessing": [_operation(o, content) for o in postprocessing_of(recipe, measured.output_dtype)],
    }


def _weights(weights: Weights, content: Content) -> dict[str, Any]:
    import torch

    version = torch.__version__.split("+")[0]
    # What the others were converted from: the state dict is the training's own.
    first = next(f for f in ("pytorch_state_dict", "torchscript", "onnx") if f in weights.files)
    entries: dict[str, Any] = {}
    for name, path in weights.files.items():
        entry: dict[str, Any] = content.file(path.name)
        if name != first:
            entry["parent"] = first
        if name == "onnx":
            entry["opset_version"] = weights.opset
        else:
            entry["pytorch_version"] = version
        if name == "pytorch_state_dict":
            entry["architecture"] = dict(weights.architecture or {})
            entry["dependencies"] = content.file("environment.yaml")
        entries[name] = entry
    return entries


def _config(
    recipe: Recipe,
    measured: Measured,
    weights: Weights,
    content: Content,
    figures: Mapping[str, float],
    baselines: Mapping[str, float],
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    from importlib.metadata import version

    geometry = measured.geometry
    by_axis = dict(zip(recipe.space, range(len(recipe.space)), strict=True))
    reach = geometry.receptive_field
    ours: dict[str, Any] = {
        "version": version("im2im_zoo"),
        "recipe": recipe.name,
        "task": recipe.output.task,
        "network": recipe.network.callable,
        "framework": recipe.framework.callable,
        "grid": {a: {"min": geometry.grid.min[i], "step": geometry.grid.step[i]} for a, i in by_axis.items()},
        "receptive_field": "global" if reach is None else {a: reach[i] for a, i in by_axis.items()},
        "halo": {a: geometry.halo[i] for a, i in by_axis.items()},
        "halo_source": {a: geometry.source[i] for a, i in by_axis.items()},
        "halo_error": _rounded(geometry.error),
        "halo_tolerance": geometry.tolerance,
        "figures": {k: _rounded(v) for k, v in figures.items()},
        "baselines": {k: _rounded(v) for k, v in baselines.items()},
        "weights_errors": {k: _rounded(v) for k, v in weights.errors.items()},
        "weights_left_out": dict(weights.left_out),
        # The format has room for comments since 0.5.4 only.
        "weights_comments": dict(weights.comments),
        "provenance": {str(k): _yaml_value(v) for k, v in provenance.items()},
        **_before_rdf(recipe, measured, content),
        **_grouping(recipe, content),
    }
    theirs: dict[str, Any] = {"model_parameter_count": measured.parameters}
    if measured.tolerance is not None:
        theirs["reproducibility_tolerance"] = [dict(measured.tolerance)]
    return {"bioimageio": theirs, "im2im_zoo": ours}


def _before_rdf(recipe: Recipe, measured: Measured, content: Content) -> dict[str, Any]:
    """The custom operations in front of the network, for which the RDF has no place; see `processing.before_rdf`."""
    custom, _ = split_custom(recipe.input.preprocessing)
    if not custom:
        return {}
    operations = [_operation(o, content) for o in custom]
    of_images = {"tensor": recipe.input.id, "image_type": measured.raw_dtype, "operations": operations}
    return {"preprocessing": [of_images]}


def _grouping(recipe: Recipe, content: Content) -> dict[str, Any]:
    """What makes labels of the output, for which the RDF has no place either; see `processing.grouping`."""
    name = grouping_name(recipe)
    return {} if name is None else {"grouping": _yaml_value(describe_grouping(recipe, content.hashes[name]))}


def _attachments(recipe: Recipe, content: Content) -> list[dict[str, str]]:
    """Files that readers have to copy with the package: the recipe, the README's picture, those of custom operations in front of
    the network, and that of the grouping.
    """
    custom, _ = split_custom(recipe.input.preprocessing)
    names = ["recipe.yaml", *(name for name in (COMPARISON,) if name in content.hashes)]
    names += [file_name(str(o.source)) for o in custom if o.id == "custom"]
    if (grouping := grouping_name(recipe)) is not None:
        names.append(grouping)
    return [content.file(name) for name in dict.fromkeys(names)]


def _operation(operation: Operation, content: Content) -> dict[str, Any]:
    if operation.id == "custom":
        name = file_name(str(operation.source))
        kwargs = _yaml_value(operation.kwargs)
        return {"id": "custom", "callable": str(operation.callable), **content.file(name), "kwargs": kwargs}
    kwargs = getattr(operation, "kwargs", None)
    if kwargs is None or operation.id == "sigmoid":
        return {"id": operation.id}
    # exclude_none: an omitted limit of a clip is none; axes are written because the recipe names them.
    return {"id": operation.id, "kwargs": kwargs.model_dump(mode="json", exclude_none=True)}


def file_name(source: str) -> str:
    """The name of a custom operation's file inside the package."""
    return re.split(r"[/\\]", source)[-1]


def _cast(dtype: str) -> spec.EnsureDtypeDescr:
    return spec.EnsureDtypeDescr.model_validate({"id": "ensure_dtype", "kwargs": {"dtype": dtype}})


def _scale(axis: str, measured: Measured) -> dict[str, Any]:
    size = measured.pixel_size_um.get(axis)
    return {} if size is None else {"unit": "micrometer", "scale": size}


def _ascii_name(name: str) -> str:
    """The name with what the format allows: no letters beyond a to z."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", name)
    return re.sub(r"[^A-Za-z0-9_+\- ()]", "", plain)


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9_\-./]+", text) is not None


def _plain(node: Any) -> dict[str, Any]:
    result: dict[str, Any] = node.model_dump(mode="json", exclude_none=True)
    return result


def _rounded(value: float) -> float | str:
    """Four digits: what a figure from few images can say. YAML of the format knows no infinity."""
    number = float(value)
    return float(f"{number:.4g}") if abs(number) < float("inf") else str(number)


def _yaml_value(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _yaml_value(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_yaml_value(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
