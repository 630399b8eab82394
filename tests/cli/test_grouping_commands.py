"""A recipe whose maps are grouped, the whole way through the commands."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from im2im_zoo.images import open_image, write_image
from im2im_zoo.recipe.load import load_recipe

if TYPE_CHECKING:
    from conftest import Cli

TINY = ("--network.kwargs.features=[4, 4, 8, 8, 8, 4]", "--data.patch_size=[64, 64]", "--data.batch_size=4")
GROUPING = "{callable: im2im_zoo.instances.methods.components.group, kwargs: {threshold: 0.5, min_size: 4}}"


@pytest.fixture(scope="module")
def grouped(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a network for masks, trained a little, whose components are the objects."""
    from im2im_zoo.cli.train import parse_overrides
    from im2im_zoo.training.train import train
    from im2im_zoo.workflows.export_run import export_run

    folder = tmp_path_factory.mktemp("grouped")
    overrides = parse_overrides((*TINY, "--output.task=instance", f"--output.grouping={GROUPING}"))
    recipe = load_recipe("nuclei_2d", [*overrides, ("data.path", str(images)), ("trainer.max_epochs", 3)])
    export_run(train(recipe, folder / "run"), folder / "package", weights=["torchscript"])
    return folder / "package"


@pytest.fixture(scope="module")
def image(images: Path) -> Path:
    return next((images / "val" / "images").iterdir())


def test_its_held_out_figures_are_those_of_objects(grouped: Path) -> None:
    readme = (grouped / "README.md").read_text()
    assert "| mean_ap |" in readme
    assert "network, postprocessing and grouping" in readme


def test_it_is_validated_shown_and_planned(cli: "Cli", grouped: Path, image: Path, tmp_path: Path) -> None:
    assert json.loads(cli("validate", grouped, "--json").out)["sound"]
    shown = json.loads(cli("show", grouped, "--json").out)
    assert shown["grouping"]["source"] == "components.py"
    planned = ("predict", grouped, image, tmp_path / "o.ome.zarr", "--plan", "--halo", "declared")
    plan = cli(*planned).out
    assert (
        "instance segmentation by components.py, the whole image at once: group(threshold=0.5, min_size=4)"
        in plan
    )
    assert "labels instances" in plan
    plan = cli(*planned, "--no-grouping").out
    assert "components.py" not in plan
    assert not (tmp_path / "o.ome.zarr").exists()


def test_its_labels_are_written_and_evaluated(
    cli: "Cli", grouped: Path, image: Path, images: Path, tmp_path: Path
) -> None:
    target = next((images / "val" / "targets").iterdir())
    figures = []
    for name in ("o.ome.zarr", "o.ome.tif"):
        done = cli("predict", grouped, image, tmp_path / name, "--json")
        assert done.code == 0, done.err
        result = json.loads(done.out)
        assert result["objects"] == open_image(result["labels"]).to_numpy().max() > 0
        assert f"with {result['objects']} objects" in done.err
        evaluated = cli("evaluate", tmp_path / name, target, "--task", "instance", "--json")
        figures.append(json.loads(evaluated.out)["figures"])
    assert figures[0] == figures[1]
    assert figures[0]["objects_predicted"] == result["objects"]
    assert cli("predict", grouped, image, tmp_path / "maps.ome.zarr", "--no-grouping").code == 0
    maps = open_image(tmp_path / "maps.ome.zarr")
    np.testing.assert_array_equal(maps, open_image(tmp_path / "o.ome.zarr"))
    assert maps.dtype == np.float32
    assert not (tmp_path / "maps.ome.zarr" / "labels").exists()


def test_a_command_with_a_table_can_be_submitted_again(
    cli: "Cli", grouped: Path, image: Path, tmp_path: Path
) -> None:
    table = tmp_path / "objects.csv"
    command = ("predict", grouped, image, tmp_path / "o.ome.zarr", "--objects", table, "--json")
    first = cli(*command)
    assert first.code == 0, first.err
    content = table.read_bytes()
    again = cli(*command)
    assert again.code == 0, again.err
    assert "objects.csv exists already and is kept" in again.err
    assert json.loads(again.out)["objects"] == json.loads(first.out)["objects"]
    # A run that was killed before it wrote the table.
    table.unlink()
    assert cli(*command).code == 0
    assert table.read_bytes() == content


def test_where_no_object_is_found_it_is_said_what_could_be_lowered(
    cli: "Cli", grouped: Path, image: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "package"
    shutil.copytree(grouped, copy)
    rdf = copy / "rdf.yaml"
    text = rdf.read_text()
    rdf.write_text(text.replace("threshold: 0.5", "threshold: 1.5"))
    assert rdf.read_text() != text
    done = cli("predict", copy, image, tmp_path / "o.ome.tif", "--json")
    assert done.code == 0, "none may be right"
    assert json.loads(done.out)["objects"] == 0
    assert "lower threshold (1.5), min_size (4) in config.im2im_zoo.grouping.kwargs" in done.err
    some = cli("predict", grouped, image, tmp_path / "some.ome.tif")
    assert "no object" not in some.err


def test_what_cannot_be_grouped_is_said_in_a_sentence(
    cli: "Cli", grouped: Path, image: Path, tmp_path: Path
) -> None:
    file = grouped / "components.py"
    before = file.read_text()
    try:
        file.write_text(before + "\n")
        done = cli("predict", grouped, image, tmp_path / "o.ome.zarr", "--allow-code")
        assert "has not been run" in done.err
        file.unlink()
        missing = cli("predict", grouped, image, tmp_path / "o.ome.zarr")
        assert "there is no file" in missing.err
        assert (done.code, missing.code) == (1, 1)
        assert "Traceback" not in done.err + missing.err
    finally:
        file.write_text(before)


def test_an_image_that_does_not_fit_the_memory_is_planned_in_blocks(
    cli: "Cli", grouped: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.npy"
    np.lib.format.open_memmap(large, "w+", np.uint8, (24000, 24000)).flush()
    options = ("--axes", "yx", "--memory", "2GB", "--plan")
    done = cli("predict", grouped, large, tmp_path / "o.ome.zarr", *options)
    assert done.code == 0, done.err
    assert "instance segmentation by components.py, in blocks of" in done.out
    planned = json.loads(cli("predict", grouped, large, tmp_path / "o.ome.zarr", *options, "--json").out)
    assert planned["memory"]["total"] <= 2e9
    assert max(planned["grouping"]["block"]) < 24000
    assert not list(tmp_path.glob("o.ome.zarr*"))


def test_its_objects_are_written_with_the_labels(
    cli: "Cli", grouped: Path, image: Path, tmp_path: Path
) -> None:
    command = ["predict", grouped, image, tmp_path / "o.ome.zarr", "--json"]
    command += ["--objects", tmp_path / "o.csv", "--objects", tmp_path / "o.geojson"]
    done = cli(*command)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "o.csv")
    assert (
        len(table)
        == json.loads(done.out)["objects"]
        == len(json.loads((tmp_path / "o.geojson").read_text())["features"])
    )
    assert table["mean"].min() > 0
    refused = cli(
        "predict", grouped, image, tmp_path / "p.ome.zarr", "--no-grouping", "--objects", tmp_path / "p.csv"
    )
    assert refused.code == 2
    assert "needs labels" in refused.err
    assert not (tmp_path / "p.ome.zarr").exists()


def test_folders_of_labels_are_evaluated_each_and_pooled(cli: "Cli", tmp_path: Path) -> None:
    for folder, name, value in [("p", "a", 1), ("p", "b", 0), ("t", "a", 1), ("t", "b", 2)]:
        (tmp_path / folder).mkdir(exist_ok=True)
        labels = np.zeros((20, 20), np.uint16)
        labels[4:9, 4:9] = value
        write_image(xr.DataArray(labels, dims=("y", "x")), tmp_path / folder / f"{name}.ome.tif", labels=True)
    command = ["evaluate", tmp_path / "p", tmp_path / "t", "--task", "instance"]
    done = cli(*command, "--json", "--report", tmp_path / "r.html")
    result = json.loads(done.out)
    assert [one["image"] for one in result["per_image"]] == ["a.ome.tif", "b.ome.tif"]
    assert (result["figures"]["ap@0.50"], result["figures"]["pooled_recall@0.50"]) == (0.5, 0.5)
    assert "b.ome.tif" in (tmp_path / "r.html").read_text()
    (tmp_path / "t" / "b.ome.tif").unlink()
    lost = cli(*command)
    assert lost.code == 2
    assert "only one has b" in lost.err
