"""Objects of a package that predicts a map, by a threshold: in memory, in files, in blocks, and of a saved map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import LITTLE, TINY, MakeGrouped
from scipy.ndimage import gaussian_filter

from im2im_zoo.core.errors import EvaluationError, ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.instances.methods import components
from im2im_zoo.instances.thresholding import Thresholding
from im2im_zoo.objects.from_map import segment_map
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime import Settings, predict, predict_array

SPLIT: dict[str, Any] = {"threshold": -0.58, "split_touching": True, "fill_holes": True, "min_size": 3}


@pytest.fixture
def package(maps_folder: Path) -> Package:
    """A package of the maps `edge` and `inside`, without a word on objects."""
    return open_package(maps_folder)


def expected(package: Package, image: xr.DataArray, **kwargs: Any) -> np.ndarray:
    maps = predict_array(package, image, whole=True).to_numpy()
    return components.group(maps, **{"channel": 1, **kwargs})


def test_the_labels_are_the_same_in_memory_in_files_and_of_a_saved_map(
    package: Package, movie: xr.DataArray, tmp_path: Path
) -> None:
    wanted = np.stack([expected(package, frame, **SPLIT) for frame in movie])
    assert wanted.max() > 3
    options = {**SPLIT, "of_class": "inside"}
    np.testing.assert_array_equal(predict_array(package, movie, **options), wanted)
    for name in ("o.ome.zarr", "o.ome.tif"):
        done = predict(package, movie, tmp_path / name, tile={"y": 80, "x": 80}, halo=8, **options)
        assert done.labels is not None
        np.testing.assert_array_equal(open_image(done.labels), wanted)
        assert done.objects == sum(int(frame.max()) for frame in wanted)
    maps = open_image(tmp_path / "o.ome.zarr")
    assert maps.dtype == np.float32
    found, count = segment_map(maps, Thresholding(**options), tmp_path)
    np.testing.assert_array_equal(found, wanted)
    assert count == done.objects
    assert found.attrs["pixel_size_um"] == {"y": 0.5, "x": 0.5}


def test_in_blocks_the_labels_are_those_of_the_whole(
    package: Package, wide: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = wide[:1000, :1050]
    wanted = expected(package, image, **SPLIT)
    options = {**SPLIT, "of_class": 1}
    done = predict(package, image, tmp_path / "o.ome.zarr", memory=LITTLE, cost=TINY, halo=8, **options)
    assert done.plan.grouping is not None
    assert done.plan.grouping.block is not None
    np.testing.assert_array_equal(open_image(tmp_path / "o.ome.zarr" / "labels" / "instances"), wanted)
    monkeypatch.setattr("im2im_zoo.objects.from_map.resident_bytes", lambda: 0)
    found, _ = segment_map(
        open_image(tmp_path / "o.ome.zarr"), Thresholding(**options), tmp_path, memory=90_000_000
    )
    assert (tmp_path / "blocks_0").is_dir()
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(PlanError, match="pass --memory"):
        segment_map(open_image(tmp_path / "o.ome.zarr"), Thresholding(**options), tmp_path, memory=10_000_000)


def test_a_volume_is_split_by_the_size_of_its_voxels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = gaussian_filter(random.random((12, 40, 50)), (1, 2, 2)).astype(np.float32)
    sizes = {"z": 1.5, "y": 0.5, "x": 0.5}
    image = xr.DataArray(values, dims=("z", "y", "x"), attrs={"pixel_size_um": sizes})
    options = {"threshold": 0.5, "split_touching": True, "min_size": "1.5um3"}
    found, count = segment_map(image, Thresholding(**options), tmp_path)
    wanted = components.group(
        values[None], threshold=0.5, split_touching=True, min_size=4, spacing=(3.0, 1.0, 1.0)
    )
    np.testing.assert_array_equal(found, wanted)
    assert count == wanted.max() > 1
    other = components.group(values[None], threshold=0.5, split_touching=True, min_size=4)
    assert (other != wanted).any()


def test_other_settings_of_objects_are_another_command(
    package: Package, image: xr.DataArray, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"threshold": -0.58, "of_class": "inside"}
    source, output = write_image(image, tmp_path / "i.ome.tif"), tmp_path / "o.tif"
    first = predict(package, source, output, **options)
    assert predict(package, source, output, **options).already_complete
    assert predict(package, source, output, **options).objects == first.objects
    for other in ({"threshold": -0.6}, {"split_touching": True}, {"fill_holes": True}, {"min_size": 2}):
        with pytest.raises(ImageError, match="other settings"):
            predict(package, source, output, **{**options, **other})


def test_a_package_whose_method_is_a_threshold_is_asked_for_another(
    make_grouped: MakeGrouped, image: xr.DataArray
) -> None:
    package = make_grouped()  # channel 1, -0.58, 3 pixels
    maps = predict_array(package, image, group=False).to_numpy()
    wanted = components.group(maps, channel=1, threshold=-0.58, min_size=40)
    np.testing.assert_array_equal(predict_array(package, image, min_size=40), wanted)
    assert wanted.max() < predict_array(package, image).to_numpy().max()


def test_what_does_not_suit_the_package_is_refused(
    package: Package, make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    def refused(message: str, model: Package = package, **options: Any) -> None:
        with pytest.raises(PlanError, match=message):
            predict(model, image, tmp_path / "o.tif", **options)
        with pytest.raises(PlanError, match=message):
            predict_array(model, image, **options)

    refused(r"add --threshold", min_size=5)
    refused(r"has 2 channels: 0 \(edge\), 1 \(inside\); choose one with --class", threshold=0.5)
    refused(r"no channel 'outside': --class is one of 0 \(edge\), 1", threshold=0.5, of_class="outside")
    refused(r"no channel 2", threshold=0.5, of_class=2)
    refused("--no-grouping writes no objects", threshold=0.5, group=False)
    refused("use for example 20um2", threshold=0.5, of_class=1, min_size="3um3")
    other = make_grouped(code="def group(maps):\n    return maps[0].astype(int)\n", name="own.py", kwargs={})
    refused(r"by its own method \(own\.py\), not by a threshold", other, threshold=0.5)
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": "20 cells"}, "20um2 or 50um3"),
        ({"min_size": -1}, "number of pixels"),
        ({"min_size": "20um"}, "20um2 or 50um3"),
        ({"neck": 2.0}, "from 0 to 1"),
        ({"threshold": float("nan")}, "use a number"),
    ],
)
def test_what_means_nothing_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Thresholding(**options)


def test_of_two_channels_the_background_is_not_taken() -> None:
    found = Thresholding(0.5).grouping("map", ["Background", "nucleus"], ("y", "x"), {})
    assert found.kwargs == {"channel": 1, "threshold": 0.5}


@pytest.mark.parametrize(
    ("size", "voxels"), [(7, 7), ("7", 7), ("7 px", 7), ("2um2", 8), ("2.1 µm²", 9), ("0.3um2", 2)]
)
def test_a_size_in_micrometres_is_one_in_voxels_rounded_up(size: int | str, voxels: int) -> None:
    found = Thresholding(0.5, min_size=size).grouping("map", 1, ("y", "x"), {"y": 0.5, "x": 0.5})
    assert found.kwargs["min_size"] == voxels
    with pytest.raises(PlanError, match="no pixel size along x"):
        Thresholding(0.5, min_size="2um2").grouping("map", 1, ("y", "x"), {"y": 0.5})


def test_settings_without_a_threshold_are_the_same_as_ever() -> None:
    assert "thresholding" not in Settings().to_json()
    assert Settings(thresholding=Thresholding(0.5)).to_json()["thresholding"] == {"threshold": 0.5}


def test_a_map_without_a_plane_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="found along"):
        segment_map(xr.DataArray(np.zeros((3, 4)), dims=("z", "x")), Thresholding(0.5), tmp_path)
