"""Real images, packaged once with tiny untrained networks for all tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from packaging_samples import Pair, network_of, tiny_recipe

from im2im_zoo.packaging import Exported, export_package


@pytest.fixture(scope="session")
def pair_2d(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> Pair:
    image, labels = (a[None, :200, :170] for a in nuclei_2d)
    attrs = {"pixel_size_um": {"y": 0.2, "x": 0.2}}
    dims = ("channel", "y", "x")
    return Pair("nuclei", xr.DataArray(image, dims=dims, attrs=attrs), xr.DataArray(labels, dims=dims))


@pytest.fixture(scope="session")
def pair_3d(nuclei_3d: tuple[np.ndarray, np.ndarray]) -> Pair:
    image, labels = (a[None] for a in nuclei_3d)
    attrs = {"pixel_size_um": {"z": 0.5, "y": 0.2, "x": 0.2}}
    dims = ("channel", "z", "y", "x")
    return Pair("nuclei", xr.DataArray(image, dims=dims, attrs=attrs), xr.DataArray(labels, dims=dims))


@pytest.fixture(scope="session")
def packaged(
    pair_2d: Pair, pair_3d: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, str], Exported]:
    """The package of a number of dimensions and a task, exported once."""
    made: dict[tuple[int, str], Exported] = {}

    def package(ndim: int, task: str) -> Exported:
        if (ndim, task) not in made:
            folder = tmp_path_factory.mktemp(f"{task}_{ndim}d")
            recipe = tiny_recipe(ndim, task)
            made[ndim, task] = export_package(
                network_of(recipe),
                recipe,
                [pair_2d if ndim == 2 else pair_3d],
                folder / "tiny",
                figures={"pearson": 0.9},
                baselines={"linear fit pearson": 0.4},
                provenance={"timestamp": "2026-01-02T03:04:05+00:00", "data": {"sha256": "abc"}},
                zip_path=folder / "tiny.zip",
            )
        return made[ndim, task]

    return package


@pytest.fixture(scope="session")
def folder_2d(packaged: Callable[[int, str], Exported]) -> Path:
    return packaged(2, "semantic").folder
