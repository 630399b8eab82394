"""Gains, means and softmaxes around a network move into its graph, and nothing changes: other programs compute them differently."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from packaging_samples import Pair, network_of, tiny_recipe, whole_output

from im2im_zoo import open_model
from im2im_zoo.packaging import export_package, validate_package
from im2im_zoo.packaging.export.in_graph import InGraph, over_all_channels, processing_in_graph
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import make_recipe
from im2im_zoo.workflows.describe import describe

SCALE_RANGE = {"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99}}
CLIP = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
PERCENTILES = {"id": "clip", "kwargs": {"min_percentile": 1.0, "max_percentile": 99.0, "axes": ["y", "x"]}}
LINEAR = {"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": -1.0}}
FIXED = {
    "id": "fixed_zero_mean_unit_variance",
    "kwargs": {"mean": [629.7, 320.0], "std": [156.8, 41.5], "axis": "channel"},
}
BACK = {
    "id": "scale_linear",
    "kwargs": {"gain": [156.8, 41.5], "offset": [629.7, 320.0], "axis": "channel"},
}
FLOAT = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
SOFTMAX = {"id": "softmax", "kwargs": {"axis": "channel"}}
SIGMOID = {"id": "sigmoid"}


def recipe_of(before: list[dict[str, Any]], after: list[dict[str, Any]], channels: int = 2) -> Recipe:
    content = tiny_recipe(2, "regression").model_dump(mode="json", exclude_none=True)
    content["network"]["kwargs"] |= {"in_channels": channels, "out_channels": channels}
    content["input"] |= {"channels": [f"c{i}" for i in range(channels)], "preprocessing": before}
    content["output"]["postprocessing"] = after
    return make_recipe(content, "in graph")


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ([SCALE_RANGE, CLIP, LINEAR, FLOAT], [], (["scale_range", "clip"], [])),
        ([FLOAT, FIXED], [BACK], (["ensure_dtype"], [])),
        ([LINEAR, PERCENTILES], [SIGMOID], (["scale_linear", "clip"], ["sigmoid"])),
        ([SCALE_RANGE, CLIP, FLOAT], [CLIP, SOFTMAX, SIGMOID], (["scale_range", "clip", "ensure_dtype"], ["sigmoid"])),
        ([LINEAR, SCALE_RANGE], [SIGMOID, LINEAR, CLIP], (["scale_linear", "scale_range"], ["clip"])),
    ],
)  # fmt: skip
def test_a_chain_moves_as_far_as_other_programs_differ(
    before: list[dict[str, Any]], after: list[dict[str, Any]], left: tuple[list[str], list[str]]
) -> None:
    recipe = recipe_of(before, after)
    made = processing_in_graph(InGraph(network_of(recipe), recipe, recipe.network))
    remaining = (made.recipe.input.preprocessing, made.recipe.output.postprocessing)
    assert tuple([str(o.id) for o in steps] for steps in remaining) == left


def test_a_package_with_its_processing_inside_gives_what_the_recipe_says(
    nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image = np.stack([nuclei_2d[0][:96, :80], nuclei_2d[0][96:192, :80]]).astype(np.uint16)
    sample = Pair("two channels", *(xr.DataArray(image, dims=("channel", "y", "x")),) * 2)
    recipe = recipe_of([FLOAT, FIXED], [BACK])
    network = network_of(recipe)
    made = export_package(network, recipe, [sample], tmp_path / "p", figures={})
    rdf = yaml.safe_load((made.folder / "rdf.yaml").read_text(encoding="utf-8"))
    assert [o["id"] for o in rdf["inputs"][0]["preprocessing"]] == ["ensure_dtype"]
    assert [o["id"] for o in rdf["outputs"][0]["postprocessing"]] == ["ensure_dtype"]
    assert set(rdf["weights"]) == {"onnx", "torchscript", "pytorch_state_dict"}
    moved = rdf["config"]["im2im_zoo"]["in_graph"]
    assert moved["before"] == [FIXED]
    assert moved["after"] == [BACK]
    assert moved["change"] < 1e-6
    assert "fixed_zero_mean_unit_variance(mean=[629.7, 320.0]" in (made.folder / "README.md").read_text(
        "utf-8"
    )
    assert describe(str(made.folder))["inside_the_network"] == {
        "before": ["fixed_zero_mean_unit_variance"],
        "after": ["scale_linear"],
    }
    expected = whole_output(network, recipe, sample).to_numpy()
    with open_model(made.folder) as model:
        result = model.predict_array(image, axes="cyx").squeeze().to_numpy()
    assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()
    assert validate_package(made.folder, allow_code=True).sound


def test_statistics_of_one_channel_are_written_over_all_channels_and_of_two_as_they_are() -> None:
    one, two = recipe_of([SCALE_RANGE], [], 1), recipe_of([SCALE_RANGE], [])
    (widened,) = over_all_channels(one, 1).input.preprocessing
    assert [str(a) for a in widened.kwargs.axes] == ["channel", "y", "x"]
    assert over_all_channels(two, 2) == two
