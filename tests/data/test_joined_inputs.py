"""Inputs of several files: their channels are joined in order, by name, and nothing is joined that does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs, hash_pairs
from im2im_zoo.data.check.examine import examine
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.pairing.image_pair import open_image_pair
from im2im_zoo.recipe import Recipe

Make = Callable[..., Recipe]
NAMES = "abc"


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    """`images` and `second` of one channel each, `pairs` of two named ones, and `targets`."""
    folder = write_pairs(tmp_path / "set", NAMES)
    for kind in ("second", "two"):
        (folder / kind).mkdir()
    for number, name in enumerate(NAMES):
        image = tifffile.imread(folder / "images" / f"{name}.tif")
        tifffile.imwrite(
            folder / "second" / f"{name}.tif", (image // 256).astype(np.uint8), metadata={"axes": "YX"}
        )
        channels = np.stack([image + number, image[::-1]])
        tifffile.imwrite(
            folder / "two" / f"{name}.ome.tif",
            channels,
            metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}},
        )
    return folder


def voxels(folder: Path, *kinds: str) -> np.ndarray[Any, Any]:
    read = [tifffile.imread(next((folder / kind).glob("a.*"))) for kind in kinds]
    return np.concatenate([image.reshape(-1, 96, 112) for image in read]).astype(np.uint16)


def first(recipe: Recipe) -> xr.DataArray:
    pairs = find_pairs(recipe.data, 0)
    return next(open_image_pair(p, recipe) for p in (*pairs.train, *pairs.validation) if p.name == "a").input


def test_channels_are_joined_in_order_and_named_by_themselves_or_their_folder(
    folder: Path, recipe_for: Make
) -> None:
    image = first(recipe_for(folder, input=["second", "two", "images"]))
    assert list(image["channel"].values) == ["second", "DAPI", "GFP", "images"]
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.values, voxels(folder, "second", "two", "images"))
    region = image[1:4:2, 5:9, 7]
    np.testing.assert_array_equal(region.values, image.values[1:4:2, 5:9, 7])
    assert image[4:].shape == (0, 96, 112)
    assert image[4:].values.size == 0
    chosen = first(recipe_for(folder, input=["second", "two"], input_channels=["GFP", "second"]))
    np.testing.assert_array_equal(chosen.values, image.values[[2, 0]])


def test_names_that_two_files_share_are_told_apart_by_the_folder(folder: Path, recipe_for: Make) -> None:
    (folder / "two").rename(folder / "x")
    (folder / "y").mkdir()
    for file in (folder / "x").iterdir():
        (folder / "y" / file.name).write_bytes(file.read_bytes())
    image = first(recipe_for(folder, input=["x", "y"]))
    assert list(image["channel"].values) == ["x DAPI", "x GFP", "y DAPI", "y GFP"]


def test_columns_suffixes_and_channels_join_as_folders_do(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    expected = voxels(folder, "images", "second")
    table = tmp_path / "table.csv"
    rows = [f"set/images/{n}.tif,set/second/{n}.tif,set/targets/{n}.tif" for n in NAMES]
    table.write_text("\n".join(["one,other,target", *rows]))
    np.testing.assert_array_equal(
        first(recipe_for(table, pairing="csv", input=["one", "other"])).values, expected
    )
    given = [
        dict(zip(("one", "other", "target"), row.replace("set/", "").split(","), strict=True)) for row in rows
    ]
    listed = recipe_for(folder, pairing="csv", pairs=given, input=["one", "other"])
    np.testing.assert_array_equal(first(listed).values, expected)
    assert hash_pairs(find_pairs(listed.data, 0)) != hash_pairs(
        find_pairs(recipe_for(folder, input=["second", "images"]).data, 0)
    )
    flat = tmp_path / "flat"
    flat.mkdir()
    for kind, suffix in (("images", "_1"), ("second", "_2"), ("targets", "_GT")):
        for name in NAMES:
            (flat / f"{name}{suffix}.tif").write_bytes((folder / kind / f"{name}.tif").read_bytes())
    joined = first(recipe_for(flat, pairing="suffixes", input=["_1", "_2"]))
    np.testing.assert_array_equal(joined.values, expected)


def test_patches_have_all_channels_and_each_file_is_part_of_the_key_of_the_cache(
    folder: Path, recipe_for: Make, tmp_path: Path
) -> None:
    recipe = recipe_for(
        folder, input=["images", "second"], cache=str(tmp_path / "cache"), patches_per_image=2
    )
    for made in (4, 6):
        data = ImagePairs(recipe)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["input"].shape == (4, 2, 32, 48)
        data.teardown("fit")
        assert len(list((tmp_path / "cache").glob("*.npy"))) == made + 2
        for name in NAMES[:2]:  # another second channel of two images
            image = tifffile.imread(folder / "second" / f"{name}.tif")
            tifffile.imwrite(folder / "second" / f"{name}.tif", image + 1, metadata={"axes": "YX"})


def test_files_that_do_not_fit_are_refused_with_their_names(folder: Path, recipe_for: Make) -> None:
    small = tifffile.imread(folder / "second" / "a.tif")[:50]
    tifffile.imwrite(folder / "second" / "a.tif", small, metadata={"axes": "YX"})
    recipe = recipe_for(folder, input=["images", "second"])
    with pytest.raises(
        DataError, match=r"channels are to be joined have different sizes(.|\n)*second/a\.tif"
    ):
        first(recipe)
    [wrong] = [f for f in examine(recipe).findings if f.severity == "error"]
    assert wrong.code == "unreadable-image"
    (folder / "second" / "b.tif").unlink()
    with pytest.raises(DataError, match="images that do not pair"):
        find_pairs(recipe.data, 0)
    with pytest.raises(DataError, match=r"'images' and 'second' need the same names(.|\n)*b"):
        find_pairs(recipe_for(folder, pairing="self", input=["images", "second"]).data, 0)
    with pytest.raises(DataError, match="has the same entry twice"):
        find_pairs(recipe_for(folder, input=["images", "images"]).data, 0)
    with pytest.raises(DataError, match=r"several files of an input, which data\.pairing: unpaired"):
        find_pairs(recipe_for(folder, pairing="unpaired", input=["images", "second"]).data, 0)


def test_rows_in_a_recipe_need_a_folder_and_are_named_in_messages(folder: Path, recipe_for: Make) -> None:
    rows = [{"input": f"images/{n}.tif", "target": f"targets/{n}.tif"} for n in NAMES]
    with pytest.raises(DataError, match=r"data\.pairs are the rows of a table: set data\.pairing: csv"):
        find_pairs(recipe_for(folder, pairs=rows).data, 0)
    lost = [*rows, {"input": "images/d.tif", "target": "targets/a.tif"}]
    with pytest.raises(
        DataError, match=r"data\.pairs lists files that do not exist(.|\n)*row 3: .*images/d\.tif"
    ):
        find_pairs(recipe_for(folder, pairing="csv", pairs=lost).data, 0)
    with pytest.raises(DataError, match=r"data\.pairs, row 3: the column 'target' is empty"):
        find_pairs(recipe_for(folder, pairing="csv", pairs=[*rows, {"input": "images/a.tif"}]).data, 0)
