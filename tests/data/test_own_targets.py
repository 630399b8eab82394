"""`data.pairing: self`: images that are their own targets, and what held-out results are measured against."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs, hash_pairs, open_validation_pairs
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.pairing.pairs import Pairs
from im2im_zoo.recipe import Data, Recipe

Make = Callable[..., Recipe]
Write = Callable[..., Path]
NORMALISED = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]


def found(path: Path, seed: int = 0, **fields: Any) -> Pairs:
    return find_pairs(Data(path=path, patch_size=(32, 32), pairing="self", **fields), seed)


def without_targets(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "targets" / f"{name}.tif").unlink()
    if not any((folder / "targets").iterdir()):
        (folder / "targets").rmdir()
    return folder


def test_an_image_is_its_own_target_and_needs_no_other(tmp_path: Path, write_pairs: Write) -> None:
    pairs = found(without_targets(write_pairs(tmp_path, "abcd"), *"abcd"))
    everything = [*pairs.train, *pairs.validation]
    assert sorted(pair.name for pair in everything) == list("abcd")
    assert all(pair.target == pair.input for pair in everything)
    assert all(pair.truth is None for pair in everything)
    assert len(pairs.validation) == 1


def test_only_held_out_images_have_something_to_be_measured_against(
    tmp_path: Path, write_pairs: Write
) -> None:
    pairs = found(without_targets(write_pairs(tmp_path, "abcd"), "a"), validation=0.5)
    assert {pair.truth for pair in pairs.train} == {None}
    expected = {n: None if n == "a" else tmp_path / "targets" / f"{n}.tif" for n in "abcd"}
    assert {pair.name: pair.truth for pair in pairs.validation}.items() <= expected.items()
    assert all(pair.target == pair.input for pair in pairs.validation)


def test_in_folders_it_lies_beside_the_images_that_validate(tmp_path: Path, write_pairs: Write) -> None:
    write_pairs(tmp_path / "train", "ab")
    write_pairs(tmp_path / "val", "c", first=2)
    [pair] = found(tmp_path, split="folders").validation
    assert pair.truth == tmp_path / "val" / "targets" / "c.tif"
    with pytest.raises(DataError, match=r"targets \(data.target\): there is no folder .*clean"):
        found(tmp_path, split="folders", target="clean")


def test_samples_have_it_as_their_target_and_say_where_there_is_none(
    tmp_path: Path, write_pairs: Write, recipe_for: Make
) -> None:
    write_pairs(tmp_path / "train", "a")
    folder = write_pairs(tmp_path / "val", "bc", first=1)
    without_targets(folder, "c")
    known, unknown = open_validation_pairs(recipe_for(tmp_path, pairing="self", split="folders"))
    assert known.measurable
    np.testing.assert_array_equal(known.target[0], tifffile.imread(folder / "targets" / "b.tif"))
    assert not unknown.measurable
    np.testing.assert_array_equal(unknown.target, unknown.input)


def test_a_batch_has_the_processed_image_twice_and_targets_do_not_matter(
    tmp_path: Path, write_pairs: Write, recipe_for: Make
) -> None:
    folder = write_pairs(tmp_path / "set", "abcd")

    def batches() -> list[dict[str, torch.Tensor]]:
        recipe = recipe_for(
            folder,
            preprocessing=NORMALISED,
            target_preprocessing=[{"id": "clip", "kwargs": {"min": 0, "max": 1}}],
            pairing="self",
            patches_per_image=2,
            augmentations=[
                {"callable": "monai.transforms.RandFlipd", "kwargs": {"prob": 0.5, "spatial_axis": 1}}
            ],
        )
        data = ImagePairs(recipe, cache=tmp_path / "cache")
        data.setup()
        return [*data.train_dataloader(), *data.val_dataloader()]

    before = batches()
    assert all(torch.equal(batch["input"], batch["target"]) for batch in before)
    assert before[0]["input"].min() < 0, "processed as the input is"
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4, "one file an image"
    for file in (folder / "targets").iterdir():
        file.write_bytes(b"no image at all")
    assert all(
        torch.equal(one["input"], other["input"]) for one, other in zip(before, batches(), strict=True)
    )


def test_cost_maps_belong_to_the_images(tmp_path: Path, write_pairs: Write, recipe_for: Make) -> None:
    folder = write_pairs(tmp_path, "ab")
    (folder / "costs").mkdir()
    for name in "ab":
        cost = np.zeros((96, 112), np.uint8)
        cost[:, :56] = 1
        tifffile.imwrite(folder / "costs" / f"{name}.tif", cost, metadata={"axes": "YX"})
    recipe = recipe_for(folder, pairing="self", cost="costs", patches_per_image=4)
    data = ImagePairs(recipe, cache=tmp_path / "cache")
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch["cost"].shape == batch["input"][:, :1].shape
    assert set(batch["cost"].unique().tolist()) == {0, 1}


def test_the_hash_is_of_the_images_alone(tmp_path: Path, write_pairs: Write) -> None:
    folder = write_pairs(tmp_path, "abc")
    before = hash_pairs(found(folder))
    without_targets(folder, *"abc")
    assert hash_pairs(found(folder)) == before


def test_an_image_that_also_validates_is_refused(tmp_path: Path, write_pairs: Write) -> None:
    write_pairs(tmp_path / "train", "a")
    write_pairs(tmp_path / "val", "a")
    with pytest.raises(DataError, match="in both training and validation"):
        found(tmp_path, split="folders")
