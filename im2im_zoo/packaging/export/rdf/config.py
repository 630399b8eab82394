"""The `config` of an RDF: measurements, and processing that the format cannot describe."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from im2im_zoo.packaging.export.border import Border
from im2im_zoo.packaging.export.plain_values import rounded, yaml_value
from im2im_zoo.packaging.export.rdf.content import Content, Measured, Metrics, MovedIntoGraph
from im2im_zoo.packaging.export.rdf.operations import operation_entry
from im2im_zoo.packaging.export.weights import Weights
from im2im_zoo.packaging.grouping import describe_grouping, grouping_name
from im2im_zoo.processing.before_rdf import split_custom
from im2im_zoo.recipe import Recipe


def describe_config(
    recipe: Recipe,
    measured: Measured,
    weights: Weights,
    content: Content,
    metrics: Metrics,
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    """Return the `config` as plain values; arguments as of `description.describe`."""
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
        "halo_error": rounded(geometry.error),
        "halo_tolerance": geometry.tolerance,
        "figures": {k: rounded(v) for k, v in metrics.values.items()},
        "baselines": {k: rounded(v) for k, v in metrics.baselines.items()},
        "weights_errors": {k: rounded(v) for k, v in weights.errors.items()},
        "weights_left_out": dict(weights.left_out),
        # The format has room for comments since 0.5.4 only.
        "weights_comments": dict(weights.comments),
        "provenance": {str(k): yaml_value(v) for k, v in provenance.items()},
        **_before_rdf(recipe, measured, content),
        **_grouping(recipe, content),
        **_in_graph(measured.in_graph, content),
        **_border(measured.border),
        **_pixel_size(measured.pixel_size_um),
        **({} if metrics.portable is None else {"portable": yaml_value(metrics.portable)}),
    }
    theirs: dict[str, Any] = {"nickname": nickname(recipe.name), "model_parameter_count": measured.parameters}
    if measured.tolerance is not None:
        theirs["reproducibility_tolerance"] = [dict(measured.tolerance)]
    return {"bioimageio": theirs, "im2im_zoo": ours}


def nickname(name: str) -> str:
    """Return the name by which deepImageJ (JDLL) keeps a model that has no `id`: `Nuclei in 2D` becomes `nuclei-in-2d`.

    JDLL cannot open a package without either, and an `id` is for the server to give: `bioimageio.spec` refuses to upload one.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "model"


def _before_rdf(recipe: Recipe, measured: Measured, content: Content) -> dict[str, Any]:
    """Return the custom operations in front of the network, which the RDF cannot describe elsewhere; see `processing.before_rdf`."""
    custom, _ = split_custom(recipe.input.preprocessing)
    if not custom:
        return {}
    operations = [operation_entry(o, content) for o in custom]
    of_images = {"tensor": recipe.input.id, "image_type": measured.raw_dtype, "operations": operations}
    return {"preprocessing": [of_images]}


def _in_graph(moved: MovedIntoGraph | None, content: Content) -> dict[str, Any]:
    """Return the processing inside the network, which the RDF lists nowhere else."""
    if moved is None:
        return {}
    entries = {
        "before": [operation_entry(o, content) for o in moved.before],
        "after": [operation_entry(o, content) for o in moved.after],
    }
    return {"in_graph": {**entries, "change": rounded(moved.change)}}


def _border(border: Border | None) -> dict[str, Any]:
    """Return the difference of the test output where programs mirror the image at its border by the halo."""
    if border is None:
        return {}
    width = "everywhere" if border.width is None else border.width
    differences = {"largest_difference": rounded(border.largest), "share_above_tenth": rounded(border.share)}
    return {"border": {"padding": "mirror", **differences, "width": width}}


def _pixel_size(sizes: Mapping[str, float]) -> dict[str, Any]:
    """Return the pixel size of the training images in micrometres, by axis.

    It is not written as the `scale` of the axes: deepImageJ (JDLL 0.6) takes that of an output for a ratio of sizes, and does not
    run the model.
    """
    return {"pixel_size_um": dict(sizes)} if sizes else {}


def _grouping(recipe: Recipe, content: Content) -> dict[str, Any]:
    """Return the entry of the grouping, which the RDF cannot describe elsewhere; see `processing.grouping`."""
    name = grouping_name(recipe)
    return {} if name is None else {"grouping": yaml_value(describe_grouping(recipe, content.hashes[name]))}
