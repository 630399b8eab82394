"""Packages that the tests of the runtime share; built once, as exporting takes a second each."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from groupings_for_tests import MakeGrouped, maps_package, with_grouping
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


@pytest.fixture(scope="session")
def maps_folder(folder: Path) -> Path:
    return maps_package(folder / "maps")


@pytest.fixture
def make_grouped(maps_folder: Path, tmp_path: Path) -> MakeGrouped:
    """A copy of the package that gives maps, with a grouping; arguments as `with_grouping`."""

    def made(**arguments: Any) -> Package:
        return with_grouping(Path(shutil.copytree(maps_folder, tmp_path / "package")), **arguments)

    return made


@pytest.fixture
def image(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    """A part of the real nuclei."""
    return xr.DataArray(
        nuclei_2d[0][:130, :150], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}}
    )


@pytest.fixture
def movie(image: xr.DataArray) -> xr.DataArray:
    return xr.concat([image, image.isel(y=slice(None, None, -1)), image // 3], dim="time")


@pytest.fixture
def wide(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    """The real nuclei, side by side."""
    return xr.DataArray(np.tile(nuclei_2d[0], (4, 4))[:1900, :1800], dims=("y", "x"))


@pytest.fixture(scope="session")
def stretched(folder: Path) -> Package:
    """With statistics of the output, so that there are two stages."""
    stretch = spec.ScaleRangeDescr(
        kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], max_percentile=100)
    )
    path = build_package(
        folder / "stretched_and_stopped",
        small_unet(levels=2),
        preprocessing=[NORMALISE_2D],
        postprocessing=[SIGMOID, stretch],
    )
    return open_package(path)
