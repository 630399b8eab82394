"""A tiny recipe on real nuclei, so that training takes seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.samples import write_samples

SMALL: list[tuple[str, object]] = [
    ("network.kwargs.features", [4, 4, 8, 8, 8, 4]),
    ("network.kwargs.dropout", 0.2),
    ("data.patch_size", [32, 32]),
    ("data.patches_per_image", 6),
    ("data.batch_size", 3),
    ("trainer.max_epochs", 2),
]


@pytest.fixture(scope="session")
def nuclei_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples("nuclei_2d", tmp_path_factory.mktemp("samples") / "nuclei")


@pytest.fixture(scope="session")
def nuclei_parts(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs (64, 80), cut out of the image that trains."""
    folder = tmp_path_factory.mktemp("parts")
    for kind in ("images", "targets"):
        [file] = (nuclei_folder / "train" / kind).iterdir()
        whole = tifffile.imread(file)
        (folder / kind).mkdir()
        for number in range(8):
            y, x = 64 * (number // 2), 80 * (number % 2)
            part = whole[y : y + 64, x : x + 80]
            tifffile.imwrite(folder / kind / f"{number}.tif", part, metadata={"axes": "YX"})
    return folder


@pytest.fixture(scope="session")
def tiny(nuclei_folder: Path) -> Callable[..., Recipe]:
    """Makes the tiny recipe; keyword arguments override keys, dots written as double underscores."""

    def make(**overrides: object) -> Recipe:
        more = [(key.replace("__", "."), value) for key, value in overrides.items()]
        return load_recipe("nuclei_2d", [*SMALL, ("data.path", str(nuclei_folder)), *more])

    return make
