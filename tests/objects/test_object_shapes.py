"""Shape, intensities and parents of objects: those of scikit-image, in any parts."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import disc, scenes
from skimage.measure import marching_cubes, mesh_surface_area, regionprops

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.objects.check import check_labels
from im2im_zoo.objects.table import object_table

ZYX = ("z", "y", "x")


def small_ids(labels: np.ndarray) -> np.ndarray:
    """The same objects with ids that scikit-image takes."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + (0 if (labels == 0).any() else 1)


def check(labels: np.ndarray, spacing: tuple[float, ...], part: int) -> None:
    space = ZYX[-labels.ndim :]
    values = np.random.default_rng(0).normal(0, 100, labels.shape)
    attrs = {"pixel_size_um": dict(zip(space, spacing, strict=True))}
    image = xr.DataArray(values, dims=space)
    table = object_table(xr.DataArray(labels, dims=space, attrs=attrs), image, part=part, measure="all")
    found = regionprops(small_ids(labels), values, spacing=spacing)
    assert len(found) == len(table)
    for row, wanted in zip(table.to_dict("records"), found, strict=True):
        size = "area_um2" if labels.ndim == 2 else "volume_um3"
        np.testing.assert_allclose(row[size], wanted.area)
        np.testing.assert_allclose(row["length_um"], wanted.axis_major_length, atol=1e-6)
        np.testing.assert_allclose(row["width_um"], wanted.axis_minor_length, atol=1e-6)
        means = [row["mean"], row["max"], row["integrated"]]
        wanted_means = [wanted.intensity_mean, wanted.intensity_max, wanted.image_intensity.sum()]
        np.testing.assert_allclose(means, wanted_means, atol=1e-9)
        if labels.ndim == 2:
            check_plane(row, wanted, spacing)
        elif min(wanted.image.shape) > 1 and wanted.num_pixels > 3:
            np.testing.assert_allclose(row["solidity"], wanted.solidity)


def check_plane(row: dict[str, float], wanted: object, spacing: tuple[float, ...]) -> None:
    np.testing.assert_allclose(row["eccentricity"], wanted.eccentricity, atol=1e-6)  # type: ignore[attr-defined]
    np.testing.assert_allclose(row["solidity"], wanted.solidity)  # type: ignore[attr-defined]
    if row["eccentricity"] > 1e-3:
        angle = row["orientation_deg"] - np.degrees(wanted.orientation)  # type: ignore[attr-defined]
        np.testing.assert_allclose((angle + 90) % 180 - 90, 0, atol=1e-6)
    if spacing[0] == spacing[1]:
        np.testing.assert_allclose(row["perimeter_um"], wanted.perimeter)  # type: ignore[attr-defined]
    else:
        assert np.isnan(row["perimeter_um"])


@settings(max_examples=40, deadline=None)
@given(labels=scenes(2), part=st.integers(1, 700), spacing=st.sampled_from([(0.5, 0.5), (0.5, 0.2)]))
def test_planes_have_the_shapes_that_scikit_image_finds(
    labels: np.ndarray, part: int, spacing: tuple[float, ...]
) -> None:
    check(labels, spacing, part)


def test_real_nuclei_have_the_shapes_that_scikit_image_finds(
    nuclei_2d: tuple[np.ndarray, np.ndarray], nuclei_3d: tuple[np.ndarray, np.ndarray]
) -> None:
    check(nuclei_2d[1].astype(np.int64), (0.3, 0.3), 5000)
    check(nuclei_3d[1].astype(np.int64)[:, :30], (2.0, 0.5, 0.5), 5000)


def test_a_ball_has_the_surface_of_its_mesh_and_a_sphericity_near_one() -> None:
    ball = disc((30, 60, 60), (15, 30, 30), 9)
    spacing = (2.0, 1.0, 1.0)
    squeezed = ball[::2]  # planes twice as far apart
    attrs = {"pixel_size_um": dict(zip(ZYX, spacing, strict=True))}
    table = object_table(xr.DataArray(squeezed.astype(np.uint8), dims=ZYX, attrs=attrs), measure="all")
    vertices, faces, *_ = marching_cubes(np.pad(squeezed, 1).astype(np.float32), 0.5, spacing=spacing)
    np.testing.assert_allclose(table["surface_area_um2"], mesh_surface_area(vertices, faces))
    assert 0.9 < table["sphericity"][0] < 1.02
    assert table["surface_area_um2"][0] == pytest.approx(4 * np.pi * 9**2, rel=0.12)
    assert table["length_um"][0] == pytest.approx(18, rel=0.03)


def test_an_object_that_is_too_large_has_empty_cells_only_for_its_outline() -> None:
    labels = xr.DataArray(np.zeros((40, 50), np.uint8), dims=("y", "x"))
    labels[2:30, 2:40] = 1
    labels[33:37, 5:9] = 2
    table = object_table(labels, measure="all", most_voxels=100)
    assert table["perimeter_px"].isna().tolist() == table["solidity"].isna().tolist() == [True, False]
    assert not table["length_px"].isna().any()


def test_without_a_pixel_size_that_of_the_image_is_used() -> None:
    labels = xr.DataArray(np.ones((4, 6), np.uint8), dims=("y", "x"))
    image = labels.astype(np.float32).assign_attrs(pixel_size_um={"y": 0.5, "x": 0.5})
    assert "length_px" in object_table(labels)
    assert object_table(labels, image)["area_um2"].tolist() == [6.0]


def test_objects_at_the_border_are_left_out() -> None:
    labels = xr.DataArray(np.zeros((2, 9, 9), np.uint8), dims=("time", "y", "x"))
    labels[:, 0:2, 3] = 1
    labels[:, 4:6, 4:6] = 2
    table = object_table(labels, exclude_border=True, measure="all")
    assert table[["time", "id"]].to_numpy().tolist() == [[0, 2], [1, 2]]


@given(scenes(2), st.integers(0, 100), st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_the_parent_is_the_one_with_most_voxels(labels: np.ndarray, seed: int, part: int) -> None:
    parents = np.random.default_rng(seed).integers(0, 4, labels.shape)
    dims = ("y", "x")
    table = object_table(xr.DataArray(labels, dims=dims), parents=xr.DataArray(parents, dims=dims), part=part)
    for label, parent in zip(table["id"], table["parent"], strict=True):
        counts = np.bincount(parents[labels == label], minlength=4)[1:]
        assert parent == (1 + counts.argmax() if counts.any() else 0)


def test_parents_of_other_sizes_are_refused() -> None:
    labels = xr.DataArray(np.ones((4, 6), np.uint8), dims=("y", "x"))
    with pytest.raises(EvaluationError, match=r"y=4 x=6.*y=4 x=5.*same axes and sizes"):
        object_table(labels, parents=labels[:, :5])


# Label images, and others


def test_label_images_of_any_kind_are_taken(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> None:
    labels = nuclei_2d[1]
    dense = np.arange(32 * 32).reshape(32, 32).repeat(4, 0).repeat(4, 1) + 1
    spots = np.zeros((90, 90), np.int64)
    spots[::3, ::3] = np.arange(900).reshape(30, 30) + 1
    thin = np.eye(200, dtype=np.int32) * 3 + np.eye(200, k=5, dtype=np.int32) * 4
    for image in (labels, labels.astype(np.float32), dense, spots, thin, labels > 0, np.zeros((5, 5))):
        check_labels(xr.DataArray(image, dims=("y", "x")))


def test_pictures_and_maps_are_refused_with_what_to_do(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> None:
    from skimage.data import cell, immunohistochemistry
    from skimage.filters import gaussian

    blurred = np.round(gaussian(cell(), 2, preserve_range=True)).astype(np.uint8)
    for picture in (nuclei_2d[0], cell(), blurred, nuclei_2d[0].astype(np.float32)):
        with pytest.raises(EvaluationError, match=r"no label image but a picture: .*--threshold"):
            check_labels(xr.DataArray(picture, dims=("y", "x")))
    with pytest.raises(EvaluationError, match="colours"):
        check_labels(xr.DataArray(immunohistochemistry(), dims=("y", "x", "channel")))
    with pytest.raises(EvaluationError, match=r"fractions from 0 to 0\.99.*--threshold"):
        check_labels(xr.DataArray(np.linspace(0, 0.99, 50).reshape(5, 10), dims=("y", "x")))
