"""Packages that the tests of the runtime share; built once, as exporting takes a second each."""

from pathlib import Path

import pytest
from operations_for_tests import NORMALISE_2D, NORMALISE_3D, SIGMOID
from packages_for_tests import build_package, small_unet

from im2im_zoo.package import Package, open_package


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def unet_2d(folder: Path) -> Package:
    """One channel, pooled by 4, statistics of the sample before and a sigmoid after."""
    path = build_package(
        folder / "unet_2d",
        small_unet(levels=2),
        weights=("onnx", "torchscript"),
        preprocessing=[NORMALISE_2D],
        postprocessing=[SIGMOID],
    )
    return open_package(path)


@pytest.fixture(scope="session")
def unet_2d_fixed(folder: Path) -> Package:
    """The same network for images of 64 x 64 only."""
    path = build_package(
        folder / "unet_2d_fixed",
        small_unet(levels=2),
        minimum=64,
        fixed=True,
        preprocessing=[NORMALISE_2D],
        postprocessing=[SIGMOID],
    )
    return open_package(path)


@pytest.fixture(scope="session")
def unet_3d(folder: Path) -> Package:
    """Two channels in, two out; pooled by 2."""
    path = build_package(
        folder / "unet_3d",
        small_unet(ndim=3, levels=1, channels=2, out_channels=2, width=3),
        axes=("batch", "channel", "z", "y", "x"),
        channels=("dna", "membrane"),
        out_channels=("inside", "edge"),
        minimum={"z": 18, "y": 20, "x": 20},
        step=2,
        halo={"z": 8, "y": 8, "x": 8},
        weights=("onnx",),
        preprocessing=[NORMALISE_3D],
    )
    return open_package(path)
