"""Real nuclei cut into small pairs of files, and recipes for them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import make_recipe

Tile = tuple[NDArray[np.uint16], NDArray[np.uint16]]


@pytest.fixture(scope="session")
def tiles(nuclei_2d: Tile) -> list[Tile]:
    """Eight pairs (96, 112) of real nuclei and labels, all different."""
    image, labels = nuclei_2d
    corners = [(y, x) for y in (0, 100, 200, 300) for x in (40, 200)]
    return [(image[y : y + 96, x : x + 112], labels[y : y + 96, x : x + 112]) for y, x in corners]


@pytest.fixture
def write_pairs(tiles: list[Tile]) -> Callable[..., Path]:
    """Writes pairs of the given names as TIFF into `images/` and `targets/` of a folder."""

    def write(folder: Path, names: Sequence[str], first: int = 0) -> Path:
        for number, name in enumerate(names, first):
            for kind, array in zip(("images", "targets"), tiles[number], strict=True):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(folder / kind / f"{name}.tif", array, metadata={"axes": "YX"})
        return folder

    return write


@pytest.fixture
def recipe_for() -> Callable[..., Recipe]:
    """A recipe for the data at a path; further arguments are fields of `data`."""

    def build(
        path: Path,
        *,
        axes: str = "yx",
        preprocessing: Sequence[Mapping[str, Any]] = (),
        target_preprocessing: Sequence[Mapping[str, Any]] = (),
        channels: Sequence[str] | None = None,
        seed: int = 0,
        **data: Any,
    ) -> Recipe:
        data.setdefault("patch_size", [32, 48] if axes == "yx" else [8, 16, 24])
        data.setdefault("batch_size", 8)
        content = {
            "name": "Nuclei for a test",
            "framework": {"callable": "torch.nn.Identity"},
            "network": {"callable": "torch.nn.Identity"},
            "data": {"path": str(path), **data},
            "input": {
                "axes": ["batch", "channel", *axes],
                "preprocessing": list(preprocessing),
                "channels": channels,
            },
            "target": {"preprocessing": list(target_preprocessing)},
            "output": {"task": "regression"},
            "seed": seed,
        }
        return make_recipe(content, "a test")

    return build


@pytest.fixture
def write_ome_zarr() -> Callable[..., Path]:
    """Writes an OME-Zarr 0.5 image."""

    def write(
        path: Path,
        array: NDArray[Any],
        axes: str,
        *,
        pixel_size_um: float | None = None,
        channel_names: Sequence[str] | None = None,
    ) -> Path:
        kinds = {"t": "time", "c": "channel"}
        entries: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
        scale = [1.0] * len(axes)
        if pixel_size_um is not None:
            scale = [pixel_size_um if a in "zyx" else 1.0 for a in axes]
            entries = [e | ({"unit": "micrometer"} if e["type"] == "space" else {}) for e in entries]
        dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"axes": entries, "datasets": [dataset]}]}
        if channel_names:
            ome["omero"] = {"channels": [{"label": name} for name in channel_names]}
        group = zarr.open_group(path, mode="w", attributes={"ome": ome})
        chunks = tuple(min(n, 32) for n in array.shape)
        stored = group.create_array(
            "0", shape=array.shape, dtype=array.dtype, chunks=chunks, dimension_names=list(axes)
        )
        stored[...] = array
        return path

    return write
