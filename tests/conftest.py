"""Fixtures shared by all tests: real images from PyPI wheels, never from a network or a fixed folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import settings
from numpy.typing import NDArray

from im2im_zoo.core.resources import fetch_sample_image

# The same examples at each run, so that a change is what breaks a test; how long a machine takes says nothing of whether it
# is right. `pytest --hypothesis-profile=search` looks at others.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def nuclei_2d() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Real fluorescence nuclei (512, 512) uint16 and their instance labels, from the stardist wheel."""
    return tifffile.imread(fetch_sample_image("img2d.tif")), tifffile.imread(fetch_sample_image("mask2d.tif"))


@pytest.fixture(scope="session")
def nuclei_3d() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Real nuclei (31, 61, 57) z, y, x and their instance labels, from the stardist wheel."""
    return tifffile.imread(fetch_sample_image("img3d.tif")), tifffile.imread(fetch_sample_image("mask3d.tif"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`, give all tests that share what takes long to one worker, which makes it once.

    The marks of pytest-xdist 3.8 have no effect under pytest 9.2, which does not read the `_nodeid` that they are written to.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsMade(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """Return the recipe of a test, the folder if its tests share packages, else the file."""
            file, _, test = nodeid.partition("::")
            if file.endswith("conformance/test_recipes.py"):
                return test.partition("[")[2]
            folder, _, _ = file.rpartition("/")
            return folder if folder.endswith(("/cli", "/packaging")) else file

    return ByWhatIsMade(config, log)
