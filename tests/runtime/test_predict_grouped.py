"""Packages with grouping: the maps, in tiles, and then the labels, of the whole image; where they go, and what they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import COLUMNS, MakeGrouped, expected_labels, maps_package, with_grouping
from test_resume import bytes_of

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.runtime import predict, predict_array, predict_arrays
from im2im_zoo.runtime.execute.work_folder import work_folder

TILE = {"y": 60, "x": 60}


@pytest.mark.parametrize("inner", ["o.ome.zarr", "o.ome.tif", "o.npy"])
def test_labels_are_of_the_whole_image_whatever_the_tiles(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path, inner: str
) -> None:
    package = make_grouped()
    done = predict(package, image, tmp_path / inner, tile=TILE, halo=8)
    assert done.labels is not None
    labels = open_image(done.labels, axes="yx" if inner.endswith("npy") else None)
    wanted = expected_labels(package, image)
    np.testing.assert_array_equal(labels, wanted)
    assert wanted.max() > 5
    assert (labels.dtype, done.objects) == (np.uint32, wanted.max())
    assert not work_folder(tmp_path / inner).exists()


def test_an_ome_zarr_has_the_maps_and_within_it_the_labels_with_their_origin(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped()
    done = predict(package, image, tmp_path / "o.ome.zarr")
    assert done.labels == tmp_path / "o.ome.zarr/labels/instances"
    assert done.outputs == (tmp_path / "o.ome.zarr",)
    maps, labels = open_image(done.output), open_image(done.labels)
    np.testing.assert_array_equal(maps, predict_array(package, image, group=False))
    assert labels.attrs["pixel_size_um"] == {"y": 0.5, "x": 0.5}
    origin = labels.attrs["im2im_zoo"]
    assert origin["grouping"]["sha256"] == package.grouping.sha256  # type: ignore[union-attr]
    assert origin["grouping"]["kwargs"] == {"channel": 1, "threshold": -0.58, "min_size": 3}
    assert {"model", "weights_sha256", "plan"} <= set(origin)
    listed = json.loads((tmp_path / "o.ome.zarr/labels/zarr.json").read_text())
    assert listed["attributes"]["ome"]["labels"] == ["instances"]


def test_an_ome_zarr_says_no_more_of_the_maps_than_one_that_is_not_grouped(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped()
    one, two = tmp_path / "a" / "o.ome.zarr", tmp_path / "b" / "o.ome.zarr"
    for path, group in ((one, True), (two, False)):
        path.parent.mkdir()
        predict(package, image, path, group=group)
    assert not (two / "labels").exists()
    shutil.rmtree(one / "labels")
    assert bytes_of(one) == bytes_of(two)


def test_labels_go_into_the_ome_zarr_of_the_image(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    source = write_image(image, tmp_path / "image.ome.zarr", ome_zarr_version="0.4")
    package = make_grouped()
    with pytest.raises(ImageError, match=r"OME-Zarr 0\.4"):
        predict(package, source, source / "labels" / "nuclei", ome_zarr_version="0.5")
    done = predict(package, source, source / "labels" / "nuclei")
    assert done.labels == source / "labels" / "nuclei"
    np.testing.assert_array_equal(open_image(done.labels), expected_labels(package, image))
    np.testing.assert_array_equal(open_image(source), image)


def test_each_time_point_is_grouped_apart(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped()
    done = predict(package, movie, tmp_path / "o.ome.zarr", tile=TILE, halo=8, ome_zarr_version="0.4")
    labels = open_image(tmp_path / "o.ome.zarr/labels/instances")
    frames = [expected_labels(package, frame) for frame in movie]
    np.testing.assert_array_equal(labels, np.stack(frames))
    assert done.objects == sum(int(f.max()) for f in frames)
    np.testing.assert_array_equal(predict_array(package, movie), np.stack(frames))


def test_planes_of_a_stack_are_grouped_apart_by_a_model_for_planes(
    make_grouped: MakeGrouped, image: xr.DataArray
) -> None:
    package = make_grouped(code=COLUMNS, name="columns.py", kwargs={})
    stack = xr.concat([image, image], dim="z")
    labels = predict_array(package, stack, allow_code=True)
    assert labels.dims == ("z", "y", "x")
    assert (labels == np.arange(1, 151)).all()


def test_volumes_are_grouped_as_volumes(tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray]) -> None:
    package = with_grouping(maps_package(tmp_path / "p", ndim=3))
    volume = xr.DataArray(nuclei_3d[0][:24, :50, :60], dims=("z", "y", "x"))
    done = predict(package, volume, tmp_path / "o.ome.tif", tile={"z": 24, "y": 30, "x": 30}, halo=8)
    np.testing.assert_array_equal(open_image(done.output), expected_labels(package, volume))


def test_in_memory_the_labels_are_beside_the_maps(make_grouped: MakeGrouped, image: xr.DataArray) -> None:
    package = make_grouped()
    results = predict_arrays(package, image)
    assert list(results) == ["out", "instances"]
    np.testing.assert_array_equal(results["instances"], expected_labels(package, image))
    np.testing.assert_array_equal(predict_array(package, image), results["instances"])
    maps = predict_array(package, image, group=False)
    assert maps.name == "out"
    np.testing.assert_array_equal(maps, results["out"])
    assert list(predict_arrays(package, image, group=False)) == ["out"]


def test_at_the_models_pixel_size_it_is_grouped_and_then_put_back(
    tmp_path: Path, image: xr.DataArray
) -> None:
    # The model's pixels are twice as large as the image's.
    path = maps_package(tmp_path / "p", pixel_size_um=1.0)
    package = with_grouping(path, code=COLUMNS, name="columns.py", kwargs={})
    for name in ("o.ome.zarr", "o.tif"):
        done = predict(package, image, tmp_path / name, rescale=True, allow_code=True)
        labels = open_image(done.labels)  # type: ignore[arg-type]
        assert labels.shape == image.shape
        np.testing.assert_array_equal(np.unique(labels), np.arange(1, 76))
        assert not work_folder(tmp_path / name).exists()
    assert open_image(tmp_path / "o.ome.zarr").sizes == {"channel": 2, "y": 130, "x": 150}


def test_the_type_of_the_labels_is_chosen_and_holds_them(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped(code=COLUMNS, name="columns.py", kwargs={"gain": 2})
    options: dict[str, Any] = {"allow_code": True}
    done = predict(package, image, tmp_path / "o.ome.zarr", dtype="uint16", **options)
    assert open_image(done.labels).dtype == np.uint16  # type: ignore[arg-type]
    assert open_image(done.output).dtype == np.float32
    with pytest.raises(PlanError, match="float32 cannot hold labels"):
        predict(package, image, tmp_path / "p.tif", dtype="float32", **options)
    assert not work_folder(tmp_path / "p.tif").exists()
    # However the method numbers them, they are 150.
    assert done.objects == 150
    with pytest.raises(PlanError, match="150 objects, more than int8"):
        predict(package, image, tmp_path / "p.tif", dtype="int8", **options)
    assert not (tmp_path / "p.tif").exists()
