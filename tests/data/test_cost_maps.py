import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from preprocessed import preprocess

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs, hash_pairs
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.recipe import Data, Recipe

Make = Callable[..., Recipe]
Write = Callable[..., Path]
NAMES = "abcd"


def data(path: Path, **fields: Any) -> Data:
    return Data(path=path, patch_size=(32, 32), **fields)


def everything(path: Path, **fields: Any) -> list[Pair]:
    pairs = find_pairs(data(path, **fields), seed=0)
    return sorted([*pairs.train, *pairs.validation], key=lambda p: p.name)


def save(path: Path, array: np.ndarray, axes: str = "YX") -> None:
    tifffile.imwrite(path, array, metadata={"axes": axes}, ome=len(axes) > 2)


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Write) -> Path:
    """Pairs with cost maps in `costs/`: the labels of the targets, so that they can be told from ones and zeros."""
    folder = write_pairs(tmp_path / "set", NAMES)
    shutil.copytree(folder / "targets", folder / "costs")
    return folder


def batches(recipe: Recipe, cache: Path) -> list[dict[str, torch.Tensor]]:
    module = ImagePairs(recipe, cache=cache)
    module.setup()
    return [*module.train_dataloader(), *module.val_dataloader()]


def test_cost_maps_are_found_by_folders_suffixes_columns_and_channels(folder: Path, tmp_path: Path) -> None:
    found = everything(folder, cost="costs")
    assert found[1] == Pair(
        "b", folder / "images" / "b.tif", folder / "targets" / "b.tif", folder / "costs" / "b.tif"
    )
    flat = tmp_path / "flat"
    flat.mkdir()
    for kind, ending in (("images", ""), ("targets", "_GT"), ("costs", "_GT_CM")):
        for name in NAMES:
            shutil.copy(folder / kind / f"{name}.tif", flat / f"{name}{ending}.tif")
    found = everything(flat, pairing="suffixes", input="", target="_GT", cost="_GT_CM")
    assert [p.name for p in found] == list(NAMES)
    assert found[0] == Pair("a", flat / "a.tif", flat / "a_GT.tif", flat / "a_GT_CM.tif")
    rows = [f"images/{n}.tif,targets/{n}.tif,costs/{n}.tif" for n in NAMES]
    (folder / "pairs.csv").write_text("\n".join(["input,target,weights", *rows]))
    found = everything(folder / "pairs.csv", pairing="csv", cost="weights")
    assert [p.cost for p in found] == [folder / "costs" / f"{n}.tif" for n in NAMES]
    channels = {"input_channels": (0,), "target_channels": (1,), "cost_channels": (2,)}
    found = everything(folder / "images", pairing="channels", **channels)
    assert all(p.input == p.target == p.cost for p in found)


def test_pairs_without_a_cost_map_and_the_reverse_are_listed(folder: Path) -> None:
    (folder / "costs" / "a.tif").rename(folder / "costs" / "z.tif")
    with pytest.raises(
        DataError,
        match=r"(?s)inputs without a cost map:\n.*images/a\.tif\n.*cost maps without an input:\n.*z\.tif",
    ) as caught:
        everything(folder, cost="costs")
    assert "b.tif" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cost_channels": (0,)}, r"need cost maps: set data\.cost"),
        ({"cost_axes": "yx"}, r"need cost maps: set data\.cost"),
        ({"cost": "nowhere"}, r"cost maps \(data\.cost\): there is no folder .*nowhere"),
        ({"pairing": "suffixes", "cost": "_GT"}, r"data\.target and data\.cost are both '_GT'"),
        (
            {"pairing": "channels", "cost": "x", "input_channels": (0,), "target_channels": (1,)},
            r"data\.cost have no effect with data\.pairing: channels",
        ),
    ],
)
def test_keys_of_cost_maps_that_do_not_go_together_are_refused(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        everything(folder, **fields)


def test_a_missing_column_of_cost_maps_is_named(folder: Path) -> None:
    rows = [f"images/{n}.tif,targets/{n}.tif" for n in NAMES]
    (folder / "pairs.csv").write_text("\n".join(["input,target", *rows]))
    with pytest.raises(DataError, match=r"data\.cost: .* no column 'cost'"):
        everything(folder / "pairs.csv", pairing="csv", cost="cost")


def test_the_hash_follows_the_cost_maps(folder: Path) -> None:
    without = hash_pairs(find_pairs(data(folder), 0))
    before = hash_pairs(find_pairs(data(folder, cost="costs"), 0))
    array = tifffile.imread(folder / "costs" / "b.tif")
    array[3, 4] += 1
    save(folder / "costs" / "b.tif", array)
    assert len({without, before, hash_pairs(find_pairs(data(folder, cost="costs"), 0))}) == 3
    assert hash_pairs(find_pairs(data(folder), 0)) == without


def test_cost_maps_are_cut_and_moved_as_the_target_and_not_processed(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    flip = {"callable": "monai.transforms.RandFlipd", "kwargs": {"prob": 0.5, "spatial_axis": 1}}
    binarize = [{"id": "binarize", "kwargs": {"threshold": 0.5}}]
    recipe = recipe_for(folder, cost="costs", augmentations=[flip], target_preprocessing=binarize)
    for batch in batches(recipe, tmp_path / "cache"):
        assert set(batch) == {"input", "target", "cost"}
        assert batch["cost"].shape[1:] == (1, 32, 48)
        assert torch.equal((batch["cost"] > 0).float(), batch["target"])
        assert batch["cost"].max() > 1


def test_a_channel_of_the_files_can_be_the_cost_map(
    tmp_path: Path,
    nuclei_3d: tuple[np.ndarray, np.ndarray],
    recipe_for: Make,
    write_ome_zarr: Write,
) -> None:
    volume, labels = nuclei_3d
    for name in "ab":
        write_ome_zarr(tmp_path / "set" / f"{name}.zarr", np.stack([volume, labels, labels > 0]), "czyx")
    recipe = recipe_for(
        tmp_path / "set",
        axes="zyx",
        pairing="channels",
        input_channels=[0],
        target_channels=[1],
        cost_channels=[2],
    )
    for batch in batches(recipe, tmp_path / "cache"):
        assert batch["cost"].shape[1:] == (1, 8, 16, 24)
        assert torch.equal(batch["cost"], (batch["target"] > 0).float())


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_values_that_are_no_cost_are_refused_with_the_file(
    folder: Path, tmp_path: Path, recipe_for: Make, value: float
) -> None:
    array = np.ones((96, 112), np.float32)
    array[50, 60] = value
    save(folder / "costs" / "c.tif", array)
    with pytest.raises(DataError, match=r"costs/c\.tif: a cost map .* at least 0"):
        batches(recipe_for(folder, cost="costs"), tmp_path / "cache")


def test_a_file_that_is_cached_as_a_target_is_still_checked_as_a_cost_map(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    save(folder / "targets" / "c.tif", np.full((96, 112), -1.0, np.float32))
    recipe = recipe_for(folder)
    preprocess(find_pairs(recipe.data, 0), recipe, tmp_path / "cache")
    recipe = recipe_for(folder, cost="targets")
    with pytest.raises(DataError, match=r"targets/c\.tif: a cost map"):
        preprocess(find_pairs(recipe.data, 0), recipe, tmp_path / "cache")


def test_cost_maps_of_several_channels_or_another_size_are_refused(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    save(folder / "costs" / "c.tif", np.ones((96, 100), np.uint8))
    with pytest.raises(DataError, match=r"(?s)cost and target differ in size.*costs/c\.tif: y 96 × x 100"):
        batches(recipe_for(folder, cost="costs"), tmp_path / "cache")
    save(folder / "costs" / "c.tif", np.ones((2, 96, 112), np.uint8), "CYX")
    with pytest.raises(DataError, match=r"costs/c\.tif: a cost map needs one channel, but this file has 2"):
        batches(recipe_for(folder, cost="costs"), tmp_path / "cache")
