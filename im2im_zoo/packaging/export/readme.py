"""The README of a package: what the model does, how to run it, its training data and its metrics."""

from collections.abc import Mapping
from typing import Any

from im2im_zoo.packaging.export.rdf.content import COMPARISON, Metrics
from im2im_zoo.packaging.export.readme_processing import (
    after_the_output,
    before_the_input,
    custom_operations,
    inside_the_network,
)
from im2im_zoo.packaging.export.usefulness import compare_with_baselines
from im2im_zoo.recipe import Recipe

_CONSUMERS = {
    "onnx": "ONNX Runtime",
    "torchscript": "Fiji (deepImageJ), ilastik, QuPath and libtorch",
    "pytorch_state_dict": "Python with PyTorch, also for fine-tuning",
}
_TASKS = {
    "regression": "an image of predicted intensities",
    "semantic": "the probability or class of each pixel",
    "instance": "an image of labels, one for each object",
}


def write_readme(
    recipe: Recipe,
    rdf: Mapping[str, Any],
    metrics: Metrics,
    provenance: Mapping[str, object],
    samples: int,
) -> str:
    """Return the README in Markdown, from the recipe and the RDF (without its file hashes)."""
    parts = [
        f"# {recipe.name}\n\n{rdf['description']}\n\n![Image and result](cover.png)",
        recipe.package.documentation.strip(),
        _use(recipe, rdf),
        before_the_input(recipe, rdf),
        after_the_output(recipe, rdf),
        _tensors(recipe, rdf),
        _training(recipe, provenance),
        _validation(rdf, metrics, provenance, samples),
        _legal(rdf),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _use(recipe: Recipe, rdf: Mapping[str, Any]) -> str:
    ours = rdf["config"]["im2im_zoo"]
    rows = [
        f"| `{name}` | {_CONSUMERS[name]} | {ours['weights_comments'][name]} |" for name in rdf["weights"]
    ]
    left_out = ours["weights_left_out"]
    reasons = [f"- There are no `{name}` weights: {reason}." for name, reason in left_out.items()]
    extra = "\n\n" + "\n".join(reasons) if reasons else ""
    image = "image" if custom_operations(rdf) else '"image.tif"'
    first = "# `image`: past the custom operations, see below\n" if custom_operations(rdf) else ""
    return f"""## Use

An image of any size, from the command line:

```
im2im-zoo predict PACKAGE image.tif result.tif
```

where `PACKAGE` is this folder, its `rdf.yaml` or its zip. In Python, for an image that fits into memory:

```python
from bioimageio.core import predict
from bioimageio.core.digest_spec import create_sample_for_model
from bioimageio.spec import load_model_description

model = load_model_description("rdf.yaml")
{first}sample = create_sample_for_model(model, inputs={{"{recipe.input.id}": {image}}})
result = predict(model=model, inputs=sample).members["{recipe.output.id}"]
```

In Fiji install deepImageJ, in ilastik use the Neural Network workflow, and give them the zip.

| weights | for | |
|---|---|---|
{chr(10).join(rows)}{extra}"""


def _tensors(recipe: Recipe, rdf: Mapping[str, Any]) -> str:
    ours = rdf["config"]["im2im_zoo"]
    source, result = rdf["inputs"][0], rdf["outputs"][0]
    channels = [", ".join(t["axes"][1]["channel_names"]) for t in (source, result)]
    steps = [
        " then ".join(o["id"] for o in t[k])
        for t, k in ((source, "preprocessing"), (result, "postprocessing"))
    ]
    sizes = ", ".join(f"{a['id']} {_size(a['size'])}" for a in source["axes"] if a["type"] == "space")
    scale = ", ".join(f"{axis} {size:.6g} µm" for axis, size in ours.get("pixel_size_um", {}).items())
    halo = ", ".join(f"{a} {n}" for a, n in ours["halo"].items())
    reach = ours["receptive_field"]
    reached = (
        "every voxel of the image (so tiles can never give exactly what the whole image gives)"
        if reach == "global"
        else ", ".join(f"{a} {n}" for a, n in reach.items()) + " voxels around it"
    )
    return f"""## Input and output

- Input `{recipe.input.id}`: {", ".join(recipe.input.axes)}; channels {channels[0]}; {source["data"]["type"]}; {steps[0]}.
- Output `{recipe.output.id}`: {_output_text(recipe)}; channels {channels[1]}; {result["data"]["type"]}; {steps[1]}.{inside_the_network(ours)}
- Sizes in voxels: {sizes}.
- Pixel size of the training images: {scale or "not known"}. Images of another pixel size should be rescaled.
- Tiles need a halo of {halo} voxels ({"; ".join(f"{a}: {s}" for a, s in ours["halo_source"].items())}).{_halo_error_text(ours)}{_border_text(ours)}
- An output voxel can depend on {reached}."""


def _size(size: int | Mapping[str, int]) -> str:
    if isinstance(size, int):
        return f"{size} and no other (`im2im-zoo predict` cuts larger images into tiles and blends them)"
    return f"{size['min']} + n x {size['step']}"


def _output_text(recipe: Recipe) -> str:
    return (
        _TASKS[recipe.output.task]
        if recipe.output.grouping is None
        else "maps, which are grouped into objects"
    )


def _halo_error_text(ours: Mapping[str, Any]) -> str:
    error = ours["halo_error"]
    if not isinstance(error, float):
        return ""
    return f"\n  With it, tiles of the sample images differed from the whole by at most {error:.1g} of the output's range."


def _border_text(ours: Mapping[str, Any]) -> str:
    """Return the line on the border of an image; empty if it was not measured."""
    border = ours.get("border")
    if border is None:
        return ""
    width = border["width"]
    where = "everywhere" if width == "everywhere" else f"within {width} voxels of the border"
    inside = "" if width == "everywhere" else "; farther inside by less than a thousandth"
    return (
        "\n- At the border of an image, `im2im-zoo predict` gives the network what is there. Programs that mirror the image by the halo "
        f"(deepImageJ, bioimageio.core on whole images) give other numbers: on the test image by up to "
        f"{border['largest_difference']:.2g} of the output's range {where}, in {border['share_above_tenth']:.2%} of the voxels by more "
        f"than a tenth{inside}."
    )


def _training(recipe: Recipe, provenance: Mapping[str, object]) -> str:
    lines = [
        "## Training",
        f"Network `{recipe.network.callable}`, method `{recipe.framework.callable}`. `recipe.yaml` in this package has all "
        "settings; `im2im-zoo train recipe.yaml --data.path=...` trains it again.",
    ]
    if recipe.package.training_data:
        lines.append(f"Training data: {recipe.package.training_data}")
    plain = {k: v for k, v in provenance.items() if isinstance(v, str | int | float)}
    known = [f"- {key.replace('_', ' ')}: {value}" for key, value in plain.items()]
    data, parent = provenance.get("data"), provenance.get("parent")
    if isinstance(data, Mapping) and "sha256" in data:
        known.append(f"- SHA-256 of the images: {data['sha256']}")
    if isinstance(parent, Mapping):
        known.append(f"- started from the weights of: {', '.join(f'{k} {v}' for k, v in parent.items())}")
    if recipe.package.parent:
        known.append(f"- tuned from: {recipe.package.parent}")
    if known:
        lines.append("\n".join(known))
    return "\n\n".join(lines)


def _validation(
    rdf: Mapping[str, Any],
    metrics: Metrics,
    provenance: Mapping[str, object],
    samples: int,
) -> str:
    images = provenance.get("validation_images", samples)
    lines = ["## Validation"]
    is_grouped = "grouping" in rdf["config"]["im2im_zoo"]
    steps = "network, postprocessing and grouping" if is_grouped else "network and postprocessing"
    if metrics.values:
        if not_better := compare_with_baselines(metrics):
            lines.append(f"**{not_better}** Check its results on your images before you use it.")
        columns = _columns(metrics)
        head = f"| measure | this model | {' | '.join(columns)}" + (" |" if columns else "")
        rule = "|---" * (2 + len(columns)) + "|"
        rows = [
            "| "
            + " | ".join([name, f"{value:.4g}", *(_cell(column, name) for column in columns.values())])
            + " |"
            for name, value in metrics.values.items()
        ]
        lines.append("\n".join([head.rstrip(), rule, *rows]))
        lines.append(
            f"Measured on held-out images (number: {images}) that were not trained on: each predicted by this package as "
            f"`im2im-zoo predict` does by default, through preprocessing, {steps}, and compared with its target; the mean over "
            "images."
        )
        if any(a["source"] == COMPARISON for a in rdf["attachments"]):
            lines.append(
                f"![A held-out image, what the model makes of it, and its target]({COMPARISON})\n\n"
                "A held-out image, what the model makes of it, and its target."
            )
        if metrics.baselines:
            lines.append(
                "The baseline compares the input image itself (or the simplest rule) with the same targets."
            )
    else:
        lines.append("No metrics were measured: evaluate the model on your own images before you use it.")
    lines += _portable(rdf["config"]["im2im_zoo"].get("portable"))
    differences = rdf["config"]["im2im_zoo"]["weights_errors"]
    table = ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
    lines.append(
        f"The weight formats were compared with the trained network at several sizes and batch sizes; largest difference, as "
        f"a fraction of the largest output: {table}. `im2im-zoo validate` repeats this on your machine.\n\n"
        "Results on images unlike those of the training (another microscope, stain, magnification, species) can be wrong "
        "without looking wrong: check some by eye or against annotations."
    )
    return "\n\n".join(lines)


def _portable(made: Mapping[str, Any] | None) -> list[str]:
    """Return the section on the loss of quality by fixed operations, for programs without custom operations."""
    if made is None:
        return []
    rows = [
        f"| {name} | {value} | {made['figures'][name]} |" for name, value in made["original_figures"].items()
    ]
    fixed = "\n".join(f"- {sentence}" for sentence in made["fixed"])
    return [
        "### Made portable",
        "For programs without custom operations, what the trained model measures of each image is fixed here:\n\n"
        + fixed,
        "\n".join(["| measure | as trained | this package |", "|---|---|---|", *rows]),
        "Both measured on the same held-out images. The predictions differ by "
        f"{made['difference']:.2g} of their standard deviation (mean absolute difference).",
    ]


def _columns(metrics: Metrics) -> dict[str, dict[str, float]]:
    """Return baselines as columns: `Otsu dice` is the metric dice of the method Otsu, `dice` alone of the method baseline."""
    columns: dict[str, dict[str, float]] = {}
    for key, value in metrics.baselines.items():
        name = next((f for f in metrics.values if key == f or key.endswith(f" {f}")), None)
        if name is not None:
            columns.setdefault(key.removesuffix(name).strip() or "baseline", {})[name] = value
    return columns


def _cell(column: Mapping[str, float], name: str) -> str:
    return f"{column[name]:.4g}" if name in column else ""


def _legal(rdf: Mapping[str, Any]) -> str:
    works = [f"- {c['text']} {_link(c)}" for c in rdf.get("cite", [])]
    authors = ", ".join(a["name"] for a in rdf.get("authors", []))
    licence = rdf.get("license")
    granted = (
        f"Licence of the weights: {licence}."
        if licence
        else "The authors have chosen no licence yet: ask them before you use the weights."
    )
    lines = ["## Licence and citation", granted]
    if authors:
        lines.append(f"Authors: {authors}.")
    return "\n\n".join(lines + (["Please cite:", "\n".join(works)] if works else []))


def _link(citation: Mapping[str, str]) -> str:
    return f"<https://doi.org/{citation['doi']}>" if "doi" in citation else f"<{citation['url']}>"
