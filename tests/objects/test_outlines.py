"""Outlines: drawn again, they give the labels back; as QuPath reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from label_scenes import components, disc, scenes
from matplotlib.path import Path as Outline

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.objects import write_objects
from im2im_zoo.objects.geojson import outlines, polygons
from im2im_zoo.objects.table import object_table


def drawn(features: list[dict], shape: tuple[int, ...]) -> np.ndarray:
    """The labels whose outlines these are: a pixel belongs to what its centre lies in, and not in a hole of."""
    labels = np.zeros(shape, np.int64)
    y, x = np.indices(shape[-2:])
    centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    for feature in features:
        geometry = feature["geometry"]
        parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        plane = labels[geometry["plane"]["z"]] if len(shape) == 3 else labels
        for outer, *holes in parts:
            assert outer[0] == outer[-1]
            inside = Outline(outer).contains_points(centres)
            for hole in holes:
                inside &= ~Outline(hole).contains_points(centres)
            plane[inside.reshape(shape[-2:])] = int(feature["properties"]["name"])
    return labels


def features_of(labels: np.ndarray, **options: int) -> list[dict]:
    image = xr.DataArray(labels, dims=("z", "y", "x")[-labels.ndim :])
    return list(outlines(image, object_table(image), **options))


@settings(max_examples=40)
@given(labels=scenes(2))
def test_outlines_give_the_labels_back(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(features_of(labels), labels.shape), labels)


@settings(max_examples=15)
@given(labels=scenes(3))
def test_outlines_of_planes_give_a_volume_back(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(features_of(labels), labels.shape), labels)


@pytest.mark.parametrize("cell", [16, 100])
def test_real_nuclei_are_given_back_whatever_the_windows(
    nuclei_2d: tuple[np.ndarray, np.ndarray], cell: int
) -> None:
    labels = nuclei_2d[1][:160, :200]
    np.testing.assert_array_equal(drawn(features_of(labels, cell=cell), labels.shape), labels)


def test_a_ring_around_a_dot_of_its_own_is_a_multipolygon_with_a_hole() -> None:
    shape = (21, 21)
    ring = disc(shape, (10, 10), 9) & ~disc(shape, (10, 10), 5) | disc(shape, (10, 10), 2)
    parts = polygons(ring)
    assert sorted(len(part) for part in parts) == [1, 2]
    assert features_of(ring.astype(int))[0]["geometry"]["type"] == "MultiPolygon"


def test_pixels_that_touch_at_a_corner_are_one_polygon() -> None:
    assert len(polygons(np.eye(3, dtype=bool))) == 1
    assert components(np.eye(3)).max() == 3


def test_a_file_is_what_qupath_imports(nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    labels = xr.DataArray(
        nuclei_2d[1][:90, :90], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}}
    )
    image = xr.DataArray(nuclei_2d[0][:90, :90], dims=("y", "x"))
    count = write_objects(labels, tmp_path / "o.geojson", image)
    read = json.loads((tmp_path / "o.geojson").read_text())
    table = object_table(labels, image).set_index("id")
    assert (read["type"], len(read["features"])) == ("FeatureCollection", count)
    for feature in read["features"]:
        properties = feature["properties"]
        assert set(feature) == {"type", "geometry", "properties"}
        assert (feature["type"], properties["objectType"]) == ("Feature", "detection")
        assert all(isinstance(v, float) for v in properties["measurements"].values())
        row = table.loc[int(properties["name"])]
        assert properties["measurements"]["area_um2"] == row["area_um2"]
        assert properties["measurements"]["mean"] == row["mean"]


def test_the_area_of_an_outline_is_that_of_its_pixels_less_half_a_pixel() -> None:
    ((ring,),) = polygons(disc((31, 31), (15, 15), 11))
    x, y = np.array(ring).T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    assert area == disc((31, 31), (15, 15), 11).sum() - 0.5


def test_no_object_gives_an_empty_collection(tmp_path: Path) -> None:
    labels = xr.DataArray(np.zeros((4, 5), np.uint8), dims=("y", "x"))
    assert write_objects(labels, tmp_path / "o.geojson") == 0
    assert json.loads((tmp_path / "o.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_movies_say_in_which_plane_an_object_is() -> None:
    labels = xr.DataArray(np.zeros((2, 3, 6, 6), int), dims=("time", "z", "y", "x"))
    labels[1, 2, 2:4, 2:4] = 7
    (feature,) = outlines(labels, object_table(labels))
    assert feature["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}


def test_other_endings_and_what_is_there_are_refused(tmp_path: Path) -> None:
    labels = xr.DataArray(np.ones((4, 5), np.uint8), dims=("y", "x"))
    with pytest.raises(EvaluationError, match=r"\.csv, \.parquet, \.geojson"):
        write_objects(labels, tmp_path / "o.xlsx")
    write_objects(labels, tmp_path / "o.csv")
    with pytest.raises(EvaluationError, match="exists already"):
        write_objects(labels, tmp_path / "o.csv")
    with pytest.raises(EvaluationError, match="whole numbers"):
        write_objects(labels * 0.5, tmp_path / "new.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]
