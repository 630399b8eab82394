"""Comparison of two models: the numbers are those of numpy on both predictions."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from groupings_for_tests import ENTRY, maps_package, with_grouping
from packages_for_tests import Doubling, build_package, small_unet

import im2im_zoo
from im2im_zoo.core.errors import EvaluationError, PackageError
from im2im_zoo.package.reference import Tolerance
from im2im_zoo.workflows.compare_models import Side, _Sums, compare_models, sides_of


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei_2d: tuple[np.ndarray, np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("image") / "nuclei.tif"
    tifffile.imwrite(path, nuclei_2d[0][:100, :120], metadata={"axes": "YX"})
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two networks, the second with other weights."""
    folder = tmp_path_factory.mktemp("packages")
    other = small_unet(levels=1)
    for parameter in other.parameters():
        parameter.requires_grad_(False).mul_(1.02)
    shape = {"minimum": 18, "step": 2, "halo": 8}
    return (
        build_package(folder / "a", small_unet(levels=1), weights=("torchscript", "onnx"), **shape),
        build_package(folder / "b", other, **shape),
    )


def test_differences_are_those_of_the_two_predictions(packages: tuple[Path, Path], image: Path) -> None:
    found = compare_models(Side(packages[0]), Side(packages[1]), image, absolute=0.01, picture=True)
    lazy = im2im_zoo.open_image(image)
    a, b = (
        im2im_zoo.open_model(package).predict_array(lazy).to_numpy().astype(float) for package in packages
    )
    (output,) = found.outputs
    difference = np.abs(a - b)
    assert output.output == "out"
    assert output.voxels == a.size
    assert output.largest == pytest.approx(difference.max(), rel=1e-4)
    assert output.mean == pytest.approx(difference.mean(), rel=1e-4)
    assert output.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)
    assert output.above_tolerance == pytest.approx((difference > 0.01).mean(), abs=1e-3)
    assert 0 < output.above_tolerance < 1
    assert found.picture is not None
    assert found.picture.shape[1] > 3 * 120


def test_two_formats_of_one_package_agree(packages: tuple[Path, Path], image: Path) -> None:
    found = compare_models(*sides_of(packages[0], None, ["onnx", "torchscript"]), image)
    assert found.a.endswith("(onnx)")
    assert found.outputs[0].above_tolerance == 0
    assert found.outputs[0].largest < 1e-3
    assert found.labels is None


def test_objects_are_matched(tmp_path: Path, image: Path) -> None:
    first, second = maps_package(tmp_path / "a"), maps_package(tmp_path / "b")
    with_grouping(first)
    with_grouping(second, kwargs={**ENTRY["kwargs"], "min_size": 40})
    same = compare_models(Side(first), Side(first), image).labels
    found = compare_models(Side(first), Side(second), image, picture=True).labels
    assert same is not None
    assert found is not None
    assert same.ap_50 == 1
    # The objects of B are those of A with 40 pixels or more.
    labels = im2im_zoo.open_model(first).predict_array(im2im_zoo.open_image(image)).to_numpy()
    sizes = np.bincount(labels.ravel())[1:]
    large = int((sizes >= 40).sum())
    assert (found.objects_a, found.objects_b, found.matched) == (len(sizes), large, large)
    assert found.ap_50 == pytest.approx(large / len(sizes))
    assert 0 < found.ap_50 < 1


def test_outputs_of_other_sizes_are_refused(packages: tuple[Path, Path], image: Path, tmp_path: Path) -> None:
    doubled = build_package(tmp_path / "c", Doubling().eval(), scale=0.5, minimum=18, step=2, halo=2)
    with pytest.raises(EvaluationError, match=r"output out: A is .*y 100.*B is .*y 200"):
        compare_models(Side(packages[0]), Side(doubled), image)


def test_a_format_that_is_not_there_is_named(packages: tuple[Path, Path], image: Path) -> None:
    with pytest.raises(PackageError, match="no weights of the format 'pytorch_state_dict'; choose one of"):
        compare_models(*sides_of(packages[0], packages[1], ["pytorch_state_dict"]), image)


def test_sides_are_two_packages_or_two_formats() -> None:
    assert sides_of("a", "b", []) == (Side("a"), Side("b"))
    assert sides_of("a", "b", ["onnx"]) == (Side("a", "onnx"), Side("b", "onnx"))
    assert sides_of("a", None, ["onnx", "torchscript"]) == (Side("a", "onnx"), Side("a", "torchscript"))
    with pytest.raises(PackageError, match="one package needs two weights formats"):
        sides_of("a", None, ["onnx"])
    with pytest.raises(PackageError, match="one for each, or none"):
        sides_of("a", "b", ["onnx"] * 3)


def test_sums_by_blocks_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a = 1e6 + rng.normal(size=1000)
    b = a + 0.5 * rng.normal(size=1000)
    sums = _Sums(Tolerance(0.0, 0.3))
    for block in np.array_split(np.arange(1000), 7):
        sums.add(a[block], b[block])
    assert sums.correlation() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    assert sums.above == (np.abs(b - a) > 0.3).sum()
    sums = _Sums(Tolerance(0.1, 0.0))
    sums.add(np.array([1.0, np.nan, np.nan, np.inf, 0.0]), np.array([1.05, np.nan, 1.0, np.inf, 0.0]))
    assert (sums.count, sums.not_finite, sums.above) == (2, 3, 1)
    assert sums.largest == pytest.approx(0.05)
    constant = _Sums(Tolerance())
    constant.add(np.ones(5), np.arange(5.0))
    assert constant.correlation() is None


def test_axes_are_brought_into_one_order() -> None:
    from im2im_zoo.workflows.compare_models import _compare_images

    a = xr.DataArray(np.arange(6.0).reshape(1, 2, 3), dims=("channel", "y", "x"))
    assert _compare_images("out", a, a.transpose("x", "y", "channel"), Tolerance()).largest == 0
