"""The RDF of a package: a recipe and measurements as a model description of spec 0.5.

`operations` describes its operations, `config` its `config`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from im2im_zoo.packaging.consumers.format_version import OLDEST, channel_names, oldest_format
from im2im_zoo.packaging.export.border import MIRRORED_TEST_OUTPUT
from im2im_zoo.packaging.export.examples import PREFIX as EXAMPLE
from im2im_zoo.packaging.export.rdf.config import describe_config
from im2im_zoo.packaging.export.rdf.content import COMPARISON, Content, Measured, Metrics
from im2im_zoo.packaging.export.rdf.operations import (
    file_name,
    operation_entry,
    postprocessing_of,
    preprocessing_of,
)
from im2im_zoo.packaging.export.weights import Weights
from im2im_zoo.packaging.grouping import grouping_name
from im2im_zoo.packaging.validation.drafts import draft_citations, draft_description, draft_tags
from im2im_zoo.processing.before_rdf import split_custom
from im2im_zoo.recipe import Recipe


def describe(
    recipe: Recipe,
    measured: Measured,
    weights: Weights,
    content: Content,
    metrics: Metrics,
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    """Return the RDF as plain values, ready for YAML. See `export` for the arguments."""
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
        # Names only: bioimageio.spec before 0.5.11 and QuPath refuse them with hashes.
        "documentation": "README.md",
        "covers": ["cover.png"],
        "attachments": _attachments(recipe, content),
        "inputs": [_input(recipe, measured, content)],
        "outputs": [_output(recipe, measured, content)],
        "weights": _weights(weights, content),
        "config": describe_config(recipe, measured, weights, content, metrics, provenance),
    }
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
        *({"type": "space", "id": a, "size": sizes[a]} for a in recipe.space),
    ]
    return {
        "id": recipe.input.id,
        "axes": axes,
        "test_tensor": content.file("test_input.npy"),
        "sample_tensor": content.file("sample_input.tif"),
        "data": {"type": measured.input_dtype, "unit": "arbitrary unit"},
        "preprocessing": [operation_entry(o, content) for o in preprocessing_of(recipe)],
    }


def _output(recipe: Recipe, measured: Measured, content: Content) -> dict[str, Any]:
    axes: list[dict[str, Any]] = [
        {"type": "batch"},
        {"type": "channel", "id": "channel", "channel_names": channel_names(measured.output_channels)},
    ]
    for axis, halo in zip(recipe.space, measured.geometry.halo, strict=True):
        size = {"tensor_id": recipe.input.id, "axis_id": axis}
        axes.append({"type": "space", "id": axis, "size": size})
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
        "postprocessing": [
            operation_entry(o, content) for o in postprocessing_of(recipe, measured.output_dtype)
        ],
    }


def _weights(weights: Weights, content: Content) -> dict[str, Any]:
    import torch

    version = torch.__version__.split("+")[0]
    # The format that the others were converted from; the state dict is the training's own.
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


def _attachments(recipe: Recipe, content: Content) -> list[dict[str, str]]:
    """Return the files that readers have to copy with the package: the recipe, the README's picture, and the code of custom
    operations in front of the network and of the grouping.
    """
    custom, _ = split_custom(recipe.input.preprocessing)
    names = ["recipe.yaml", *(name for name in (COMPARISON,) if name in content.hashes)]
    names += [file_name(str(o.source)) for o in custom if o.id == "custom"]
    names += [name for name in (MIRRORED_TEST_OUTPUT,) if name in content.hashes]
    names += [name for name in content.hashes if name.startswith(EXAMPLE)]
    if (grouping := grouping_name(recipe)) is not None:
        names.append(grouping)
    return [content.file(name) for name in dict.fromkeys(names)]


def _ascii_name(name: str) -> str:
    """Return the name in the characters that the format allows."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", name)
    return re.sub(r"[^A-Za-z0-9_+\- ()]", "", plain)


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9_\-./]+", text) is not None


def _plain(node: Any) -> dict[str, Any]:
    result: dict[str, Any] = node.model_dump(mode="json", exclude_none=True)
    return result
