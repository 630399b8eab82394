"""The table of objects: that of scikit-image for the whole image, whatever the parts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import scenes
from skimage.measure import regionprops_table

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.objects.table import object_table

ZYX = ("z", "y", "x")


def of_scikit_image(labels: np.ndarray, values: np.ndarray | None) -> dict[str, np.ndarray]:
    """By our names; regionprops takes labels of 32 bits that do not leave gaps."""
    ids = np.unique(labels[labels > 0])
    small = np.searchsorted(ids, labels) + 1
    small[labels == 0] = 0
    space = ZYX[-labels.ndim :]
    names = ["label", "num_pixels", "centroid", "bbox", *(["intensity_mean"] if values is not None else [])]
    if not len(ids):
        return {"id": ids}
    found = regionprops_table(small.astype(np.int32), values, properties=names)
    size = "volume" if labels.ndim == 3 else "area"
    wanted = {"id": ids[found["label"] - 1], size: found["num_pixels"]}
    for k, a in enumerate(space):
        wanted[f"centroid_{a}"] = found[f"centroid-{k}"]
        wanted[f"bbox_{a}_start"] = found[f"bbox-{k}"]
        wanted[f"bbox_{a}_stop"] = found[f"bbox-{k + labels.ndim}"]
    if values is not None:
        wanted["mean"] = found["intensity_mean"]
    return wanted


def check(labels: np.ndarray, part: int) -> None:
    space = ZYX[-labels.ndim :]
    values = np.random.default_rng(0).integers(0, 60000, labels.shape).astype(np.uint16)
    table = object_table(xr.DataArray(labels, dims=space), xr.DataArray(values, dims=space), part=part)
    for name, wanted in of_scikit_image(labels, values).items():
        np.testing.assert_allclose(table[name], wanted, rtol=1e-12, err_msg=name)
    at = {i: np.argwhere(labels == i) for i in table["id"]}
    last = np.array(labels.shape) - 1
    touching = [bool((((p == 0) | (p == last)) & (last > 0)).any()) for p in at.values()]
    assert table["touches_border"].tolist() == touching


@settings(max_examples=40)
@given(labels=scenes(2), part=st.integers(1, 700))
def test_planes_measure_what_scikit_image_measures_of_the_whole(labels: np.ndarray, part: int) -> None:
    check(labels, part)


@settings(max_examples=25)
@given(labels=scenes(3), part=st.integers(1, 900))
def test_volumes_measure_what_scikit_image_measures_of_the_whole(labels: np.ndarray, part: int) -> None:
    check(labels, part)


def test_real_nuclei_in_parts_of_a_file_measure_as_the_whole(
    nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, labels = nuclei_2d
    attrs = {"pixel_size_um": {"y": 0.5, "x": 0.25}, "translation_um": {"y": 100.0, "x": 7.0}}
    write_image(xr.DataArray(labels, dims=("y", "x"), attrs=attrs), tmp_path / "l.ome.zarr", labels=True)
    channels = xr.DataArray(
        np.stack([image, image // 2]), dims=("channel", "y", "x"), coords={"channel": ["dna", "half"]}
    )
    table = object_table(open_image(tmp_path / "l.ome.zarr"), channels, part=10_000)
    wanted = regionprops_table(
        labels, image, properties=("label", "area", "centroid", "intensity_mean"), spacing=(0.5, 0.25)
    )
    np.testing.assert_allclose(table["area_um2"], wanted["area"])
    np.testing.assert_allclose(table["centroid_y_um"], 100 + wanted["centroid-0"])
    np.testing.assert_allclose(table["centroid_x_um"], 7 + wanted["centroid-1"])
    np.testing.assert_allclose(table["mean_dna"], wanted["intensity_mean"])
    assert (table["mean_half"] < table["mean_dna"]).all()
    assert len(table) == len(wanted["label"]) > 20


def test_each_time_point_has_objects_of_its_own() -> None:
    labels = xr.DataArray(np.zeros((3, 4, 5), np.uint8), dims=("time", "y", "x"))
    labels[0, :2] = 1
    labels[2, 1:3, 1] = 1
    image = xr.DataArray(np.arange(60.0).reshape(3, 4, 5), dims=("time", "y", "x"))
    table = object_table(labels, image)
    assert table[["time", "id", "area"]].to_numpy().tolist() == [[0, 1, 10], [2, 1, 2]]
    assert table["mean"].tolist() == [4.5, np.mean([46, 51])]


def test_no_object_gives_a_table_without_rows() -> None:
    table = object_table(xr.DataArray(np.zeros((4, 5), np.uint16), dims=("y", "x")))
    assert len(table) == 0
    assert {"id", "area", "bbox_y_start", "touches_border"} <= set(table.columns)


@pytest.mark.parametrize(
    ("labels", "image", "says"),
    [
        (np.full((3, 3), 0.5), None, "whole numbers"),
        (np.full((3, 3), -1), None, "label -1"),
        (np.ones((3, 3), int), np.ones((3, 4)), "y=3 x=3.*y=3 x=4.*same sizes"),
    ],
)
def test_what_cannot_be_measured_says_why(labels: np.ndarray, image: np.ndarray | None, says: str) -> None:
    given_image = None if image is None else xr.DataArray(image, dims=("y", "x"))
    with pytest.raises(EvaluationError, match=says):
        object_table(xr.DataArray(labels, dims=("y", "x")), given_image)


def test_parts_change_nothing_of_a_table_with_many_objects() -> None:
    rng = np.random.default_rng(1)
    labels = xr.DataArray(
        np.repeat(np.repeat(rng.permutation(2500).reshape(50, 50), 4, 0), 4, 1), dims=("y", "x")
    )
    pd.testing.assert_frame_equal(object_table(labels, part=37), object_table(labels), check_exact=True)
