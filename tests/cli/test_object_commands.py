"""`predict --threshold`, and `objects` of maps and label images, as typed by a user."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from im2im_zoo.images import open_image, write_image

if TYPE_CHECKING:
    from conftest import Cli

SPLIT = ("--threshold", 0.5, "--split-touching", "--fill-holes", "--min-size", 20)


@pytest.fixture
def image(nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    attrs = {"pixel_size_um": {"y": 0.5, "x": 0.5}}
    whole = xr.DataArray(nuclei_2d[0][:256, :300], dims=("y", "x"), attrs=attrs)
    return write_image(whole, tmp_path / "image.ome.tif")


def test_a_probability_map_answers_how_many_nuclei(
    cli: "Cli", image: Path, nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    output, table = tmp_path / "o.ome.zarr", tmp_path / "nuclei.csv"
    command = ("predict", "nuclei_2d", image, output, *SPLIT, "--objects", table)
    done = cli(*command, "--measure", "all", "--json")
    assert done.code == 0, done.err
    count = json.loads(done.out)["objects"]
    assert f"with {count} objects" in done.err
    assert len(pd.read_csv(table)) == count
    true = len(np.unique(nuclei_2d[1][:256, :300])) - 1
    assert abs(count - true) < 0.15 * true
    again = cli(*command)
    assert again.code == 0
    assert f"with {count} objects: this command has written it before" in again.err
    other = cli("predict", "nuclei_2d", image, output, "--threshold", 0.7)
    assert other.code == 1
    assert "written from other settings" in other.err
    # The same of the saved map, in another command.
    saved = ("objects", output, tmp_path / "again.csv", *SPLIT, "--labels", tmp_path / "labels.ome.tif")
    measured = cli(*saved, "--measure", "all", "--image", image)
    assert measured.code == 0, measured.err
    assert f"labels of {count} objects" in measured.err
    assert (tmp_path / "again.csv").read_text() == table.read_text()
    labels = open_image(tmp_path / "labels.ome.tif")
    np.testing.assert_array_equal(labels, open_image(output / "labels" / "instances"))
    columns = pd.read_csv(table).columns
    assert {"area_um2", "length_um", "perimeter_um", "solidity", "mean", "max", "integrated"} <= set(columns)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_measured_is_refused_and_nothing_is_written(
    cli: "Cli", image: Path, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    picture = cli("objects", image, table)
    assert (picture.code, "no label image but a picture" in picture.err) == (1, True)
    unknown = cli("objects", image, table, "--measure", "everything")
    assert (unknown.code, "choose one of basic, all" in unknown.err) == (2, True)
    alone = cli("objects", image, table, "--labels", tmp_path / "l.tif")
    assert (alone.code, "add --threshold" in alone.err) == (2, True)
    neck = cli("objects", image, table, "--threshold", 3, "--neck", 0.7)
    assert (neck.code, "add --split-touching" in neck.err) == (2, True)
    size = cli("objects", image, table, "--threshold", 3, "--min-size", "3 cells")
    assert (size.code, "20um2" in size.err) == (1, True)
    package = cli("predict", "nuclei_2d", image, tmp_path / "o.tif", "--objects", table)
    assert (package.code, "add --threshold" in package.err) == (2, True)
    (tmp_path / "l.tif").write_bytes(b"mine")
    kept = cli("objects", image, table, "--threshold", 3, "--labels", tmp_path / "l.tif")
    assert (kept.code, "exists already" in kept.err) == (2, True)
    assert (tmp_path / "l.tif").read_bytes() == b"mine"
    assert not table.exists()
    assert not (tmp_path / "o.tif").exists()


def test_parents_and_borders_and_an_unknown_pixel_size(cli: "Cli", tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[0:4, 5:9], labels[10:14, 10:14], labels[20:24, 30:34] = 1, 2, 3
    cells = np.zeros((30, 40), np.uint8)
    cells[:, :12], cells[:, 12:25] = 1, 2
    for name, image in (("l", labels), ("c", cells)):
        write_image(xr.DataArray(image, dims=("y", "x")), tmp_path / f"{name}.tif", labels=True)
    table = tmp_path / "t.csv"
    done = cli("objects", tmp_path / "l.tif", table, "--parents", tmp_path / "c.tif", "--exclude-border")
    assert done.code == 0, done.err
    assert "No pixel size is known" in done.err
    found = pd.read_csv(table)
    assert found[["id", "parent"]].to_numpy().tolist() == [[2, 1], [3, 0]]
    assert found["length_px"].notna().all()


def test_a_map_without_objects_warns(cli: "Cli", image: Path, tmp_path: Path) -> None:
    done = cli("objects", image, tmp_path / "t.csv", "--threshold", 1e6)
    assert done.code == 0
    assert "no object was found" in done.err
    predicted = cli("predict", "nuclei_2d", image, tmp_path / "o.tif", "--threshold", 2)
    assert predicted.code == 0
    assert "lower --threshold (2.0), --min-size (1)" in predicted.err


def test_a_folder_gives_one_table_with_the_file_of_each_object(cli: "Cli", tmp_path: Path) -> None:
    labels, images, table = tmp_path / "labels", tmp_path / "images", tmp_path / "t.csv"
    labels.mkdir()
    images.mkdir()
    for count, name in enumerate(("one", "two", "none"), 1):
        image = np.zeros((20, 30), np.uint8)
        for number in range(1, count + 1) if name != "none" else ():
            image[2:6, 5 * number : 5 * number + 3] = number
        write_image(xr.DataArray(image, dims=("y", "x")), labels / f"{name}.tif", labels=True)
        write_image(xr.DataArray(image * 0 + count, dims=("y", "x")), images / f"{name}.ome.tif")
    done = cli("objects", labels, table, "--image", images)
    assert done.code == 0, done.err
    found = pd.read_csv(table)
    assert found[["file", "id", "mean"]].to_numpy().tolist() == [
        ["one", 1, 1.0],
        ["two", 1, 2.0],
        ["two", 2, 2.0],
    ]
    assert "3 objects in 3 images" in done.err
    mapped = cli("objects", labels, tmp_path / "m.csv", "--threshold", 1, "--min-size", 3)
    assert mapped.code == 0, mapped.err
    assert pd.read_csv(tmp_path / "m.csv")[["file", "area"]].to_numpy().tolist() == [["two", 12]]
    (images / "two.ome.tif").unlink()
    lost = cli("objects", labels, tmp_path / "x.csv", "--image", images)
    assert (lost.code, "there is none for two" in lost.err) == (2, True)
    outlines = cli("objects", labels, tmp_path / "x.geojson")
    assert (outlines.code, "outlines are of one image" in outlines.err) == (1, True)
    noise = np.random.default_rng(0).integers(0, 200, (40, 40)).astype(np.uint8)
    write_image(xr.DataArray(noise, dims=("y", "x")), labels / "picture.tif")
    picture = cli("objects", labels, tmp_path / "x.csv")
    assert picture.code == 1
    assert "picture.tif: this is no label image" in picture.err
    assert not list(tmp_path.glob("*x.*"))


def test_a_plate_gives_one_table_with_the_field_of_each_object(cli: "Cli", tmp_path: Path) -> None:
    plate, wells = tmp_path / "plate.zarr", ("A/1", "B/2")
    for number, well in enumerate(wells, 1):
        field = plate / well / "0.ome.zarr"
        field.parent.mkdir(parents=True)
        image = np.zeros((20, 30), np.uint16)
        image[3 : 3 + 2 * number, 4:8] = 1
        write_image(xr.DataArray(image * 100, dims=("y", "x")), field)
        write_image(xr.DataArray(image, dims=("y", "x")), field / "labels" / "instances", labels=True)
        (field.parent / ".zattrs").write_text(json.dumps({"well": {"images": [{"path": field.name}]}}))
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": well} for well in wells]}}))
    done = cli("objects", plate, tmp_path / "t.csv", "--image", plate)
    assert done.code == 0, done.err
    found = pd.read_csv(tmp_path / "t.csv")
    wanted = [["A/1/0.ome.zarr", 8, 100.0], ["B/2/0.ome.zarr", 16, 100.0]]
    assert found[["field", "area", "mean"]].to_numpy().tolist() == wanted
