"""Label images within an OME-Zarr: listed, valid by the specification, and nothing of the image changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from ome_zarr_models import open_ome_zarr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image, pixel_size_um, write_image

VERSIONS = ("0.4", "0.5")


@pytest.fixture
def labels(nuclei_2d: tuple[NDArray[Any], NDArray[Any]]) -> xr.DataArray:
    return xr.DataArray(nuclei_2d[1], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}})


def image_at(path: Path, version: str, nuclei_2d: tuple[NDArray[Any], NDArray[Any]]) -> Path:
    image = xr.DataArray(nuclei_2d[0], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}})
    return write_image(image, path, ome_zarr_version=version)


def listed(path: Path, version: str) -> list[str]:
    if version == "0.4":
        return list(json.loads((path / "labels/.zattrs").read_text())["labels"])
    ome = json.loads((path / "labels/zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    return list(ome["labels"])


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_are_listed_valid_and_read_back(
    tmp_path: Path, version: str, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.ome.zarr", version, nuclei_2d)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    write_image(labels, path / "labels/nuclei")
    write_image(labels * 2, path / "labels/twice")
    assert listed(path, version) == ["nuclei", "twice"]
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in (path / "labels").iterdir() if p.is_dir()) == ["nuclei", "twice"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    opened = open_image(path / "labels/nuclei")
    np.testing.assert_array_equal(opened.values, labels.values)
    assert opened.dtype == labels.dtype
    assert pixel_size_um(opened) == {"y": 0.5, "x": 0.5}
    np.testing.assert_array_equal(open_image(path / "labels/nuclei/1").values, labels.values[::2, ::2])
    np.testing.assert_array_equal(open_image(path).values, nuclei_2d[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_of_the_specification_accept_labels_of_an_image(
    tmp_path: Path, version: Any, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.ome.zarr", version, nuclei_2d)
    write_image(labels, path / "labels/nuclei")
    assert type(open_ome_zarr(path, version=version)).__name__ == "Image"
    group = open_ome_zarr(path / "labels", version=version)
    assert type(group).__name__ == "Labels"
    image = open_ome_zarr(path / "labels/nuclei", version=version)
    assert type(image).__name__ == "ImageLabel"
    attributes: dict[str, Any] = dict(zarr.open_group(path / "labels/nuclei", mode="r").attrs)
    about = attributes.get("ome", attributes)["image-label"]
    assert about["source"] == {"image": "../../"}


def test_labels_of_others_stay_listed(
    tmp_path: Path, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.zarr", "0.5", nuclei_2d)
    group = zarr.open_group(path / "labels", mode="w", zarr_format=3)
    group.attrs.update({"ome": {"version": "0.5", "labels": ["cells"]}, "mine": 1})
    write_image(labels, path / "labels/nuclei")
    assert listed(path, "0.5") == ["cells", "nuclei"]
    assert dict(zarr.open_group(path / "labels").attrs)["mine"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_are_replaced_only_when_told_and_listed_once(
    tmp_path: Path, version: str, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.zarr", version, nuclei_2d)
    write_image(labels, path / "labels/nuclei")
    with pytest.raises(ImageError, match="exists already"):
        write_image(labels * 2, path / "labels/nuclei")
    write_image(labels * 2, path / "labels/nuclei", overwrite=True)
    assert listed(path, version) == ["nuclei"]
    np.testing.assert_array_equal(open_image(path / "labels/nuclei").values, labels.values * 2)


@pytest.mark.parametrize("work", [False, True])
def test_labels_that_were_not_completed_leave_nothing_in_the_image(
    tmp_path: Path, work: bool, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.zarr", "0.5", nuclei_2d)
    place = tmp_path / "nuclei.incomplete" if work else None

    def interrupted(complete: bool = False) -> None:
        with create_image(
            path / "labels/nuclei", axes="yx", shape=labels.shape, dtype=labels.dtype, work=place
        ) as writer:
            writer.write({}, labels.values)
            assert not (path / "labels").exists()
            if not complete:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (path / "labels").exists()
    assert len(list(tmp_path.iterdir())) == 1 + work
    interrupted(complete=True)
    assert listed(path, "0.5") == ["nuclei"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_what_cannot_be_labels_of_an_image_is_refused(
    tmp_path: Path, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], labels: xr.DataArray
) -> None:
    path = image_at(tmp_path / "a.zarr", "0.5", nuclei_2d)
    with pytest.raises(ImageError, match=r"is OME-Zarr 0.5, and labels of 0.4"):
        write_image(labels, path / "labels/nuclei", ome_zarr_version="0.4")
    with pytest.raises(ImageError, match="labels are float32, but label images hold integers"):
        write_image(labels.astype("float32"), path / "labels/nuclei")
    with pytest.raises(ImageError, match=r"nothing.zarr: there is no such OME-Zarr"):
        write_image(labels, tmp_path / "nothing.zarr/labels/nuclei")
    zarr.create_array(tmp_path / "plain.zarr", shape=(3, 4), dtype="uint8")
    with pytest.raises(ImageError, match="no multiscales"):
        write_image(labels, tmp_path / "plain.zarr/labels/nuclei")
    (tmp_path / "labels").mkdir()
    with pytest.raises(ImageError, match="cannot be written; use one of"):
        write_image(labels, tmp_path / "labels/nuclei")
    old = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    old.attrs["multiscales"] = [{"version": "0.2", "datasets": [{"path": "0"}]}]
    with pytest.raises(ImageError, match=r"OME-Zarr '0.2' is not written"):
        write_image(labels, tmp_path / "old.zarr/labels/nuclei")
    assert not (path / "labels").exists()


def test_other_files_and_folders_called_labels_are_what_their_names_say(
    tmp_path: Path, labels: xr.DataArray
) -> None:
    (tmp_path / "labels").mkdir()
    for name in ("a.tif", "a.npy", "a.ome.zarr"):
        write_image(labels, tmp_path / "labels" / name)
        opened = open_image(tmp_path / "labels" / name, axes="yx")
        np.testing.assert_array_equal(opened.values, labels.values)
    assert type(open_ome_zarr(tmp_path / "labels/a.ome.zarr", version="0.5")).__name__ == "Image"
    assert not (tmp_path / "labels/zarr.json").exists()
