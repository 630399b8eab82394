import shutil
from collections.abc import Callable, Iterator
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
Tiles = list[tuple[np.ndarray, np.ndarray]]
FLIP = {"callable": "monai.transforms.RandFlipd", "kwargs": {"prob": 0.5, "spatial_axis": 1}}


def found(path: Path, seed: int = 0, **fields: Any) -> Pairs:
    return find_pairs(Data(path=path, patch_size=(32, 32), pairing="unpaired", **fields), seed)


def stems(paths: tuple[Path, ...]) -> list[str]:
    return [path.stem for path in paths]


def write(folder: Path, kind: str, names: str, tiles: Tiles, part: tuple[slice, slice] = np.s_[:, :]) -> None:
    """Images of a kind, one a name, all different."""
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        array = tiles[(ord(name) - ord("a")) % 8][kind == "targets"][part]
        tifffile.imwrite(folder / kind / f"{name}.tif", array, metadata={"axes": "YX"})


@pytest.fixture
def folder(tmp_path: Path, tiles: Tiles) -> Path:
    """Inputs a to e of 96 x 112, targets c to h of 64 x 80: c, d and e are pairs by name, cut to the same size."""
    folder = tmp_path / "set"
    write(folder, "images", "ab", tiles)
    write(folder, "images", "cde", tiles, np.s_[:64, :80])
    write(folder, "targets", "cdefgh", tiles, np.s_[:64, :80])
    return folder


@pytest.fixture
def data_of(recipe_for: Make, tmp_path: Path) -> Iterator[Callable[..., ImagePairs]]:
    def build(path: Path, **options: Any) -> ImagePairs:
        fields = {"patches_per_image": 4, "batch_size": 5, "pairing": "unpaired"} | options
        data = ImagePairs(recipe_for(path, **fields), cache=tmp_path / "cache")
        data.setup()
        return data

    return build


def epoch(data: ImagePairs, number: int = 0) -> dict[str, torch.Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    order = torch.tensor([index for _, index in loader.sampler]).argsort()
    batches = list(loader)
    return {key: torch.cat([b[key] for b in batches])[order] for key in batches[0]}


def test_pairs_by_name_validate_and_all_others_train(folder: Path) -> None:
    pairs = found(folder, validation=0.34)
    [pair] = pairs.validation
    assert pair.name in "cde"
    assert pair.input == folder / "images" / f"{pair.name}.tif"
    assert pair.target == folder / "targets" / f"{pair.name}.tif"
    assert pairs.train == ()
    assert stems(pairs.inputs) == [n for n in "abcde" if n != pair.name]
    assert stems(pairs.targets) == [n for n in "cdefgh" if n != pair.name]


@pytest.mark.parametrize("seed", range(6))
def test_no_image_that_validates_trains_nor_does_its_partner(folder: Path, seed: int) -> None:
    pairs = found(folder, seed, validation=0.67)
    names = {pair.name for pair in pairs.validation}
    assert len(names) == 2
    assert not names & {*stems(pairs.inputs), *stems(pairs.targets)}


def test_some_images_of_each_side_are_left_to_train(tmp_path: Path, write_pairs: Write) -> None:
    pairs = found(write_pairs(tmp_path, "abc"), validation=0.99)
    assert len(pairs.validation) == 2
    assert stems(pairs.inputs) == stems(pairs.targets)
    assert len(pairs.inputs) == 1


def test_a_folder_to_train_is_unpaired_and_one_to_validate_is_paired(
    tmp_path: Path, tiles: Tiles, write_pairs: Write
) -> None:
    write(tmp_path / "train", "images", "ab", tiles)
    write(tmp_path / "train", "targets", "defg", tiles)
    write_pairs(tmp_path / "val", ["h"], first=7)
    pairs = found(tmp_path, split="folders")
    assert (stems(pairs.inputs), stems(pairs.targets)) == (list("ab"), list("defg"))
    assert [p.name for p in pairs.validation] == ["h"]
    (tmp_path / "val" / "targets" / "h.tif").rename(tmp_path / "val" / "targets" / "i.tif")
    with pytest.raises(DataError, match="images that do not pair"):
        found(tmp_path, split="folders")


@pytest.mark.parametrize(("inputs", "targets"), [("ab", "cd"), ("ab", "a"), ("a", "ab")])
def test_too_few_pairs_or_images_are_refused_with_what_to_do(
    tmp_path: Path, tiles: Tiles, inputs: str, targets: str
) -> None:
    write(tmp_path, "images", inputs, tiles)
    write(tmp_path, "targets", targets, tiles)
    with pytest.raises(DataError, match=r"the same name; or put the pairs into val/.*data\.split: folders"):
        found(tmp_path)


@pytest.mark.parametrize("kind", ["images", "targets"])
def test_an_image_that_also_validates_is_refused(
    tmp_path: Path, tiles: Tiles, write_pairs: Write, kind: str
) -> None:
    write(tmp_path / "train", "images", "ab", tiles)
    write(tmp_path / "train", "targets", "cd", tiles)
    write_pairs(tmp_path / "val", ["h"], first=7)
    shutil.copy(tmp_path / "val" / kind / "h.tif", tmp_path / "train" / kind / "h.tif")
    with pytest.raises(DataError, match=rf"in both training and validation.*\n.*val/{kind}/h\.tif"):
        found(tmp_path, split="folders")
    (tmp_path / "train" / kind / "h.tif").unlink()
    (tmp_path / "train" / kind / "other.tif").symlink_to(tmp_path / "val" / kind / "h.tif")
    with pytest.raises(DataError, match=rf"in both training and validation.*\n.*val/{kind}/h\.tif"):
        found(tmp_path, split="folders")


@pytest.mark.parametrize("fields", [{"cost": "costs"}, {"cost_channels": (0,)}, {"cost_axes": "yx"}])
def test_cost_maps_are_refused(folder: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"have no effect with data\.pairing: unpaired"):
        found(folder, **fields)


def test_the_hash_follows_every_image_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = hash_pairs(found(folder))
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert hash_pairs(found(tmp_path / "elsewhere")) == before
    hashes = {before}
    for kind, name in (("images", "a"), ("targets", "h")):
        file = tmp_path / "elsewhere" / kind / f"{name}.tif"
        array = tifffile.imread(file)
        array[3, 4] += 1
        tifffile.imwrite(file, array, metadata={"axes": "YX"})
        hashes.add(hash_pairs(found(tmp_path / "elsewhere")))
    assert len(hashes) == 3


def test_an_epoch_has_patches_for_each_image_of_the_larger_side(
    folder: Path, data_of: Callable[..., ImagePairs]
) -> None:
    seen = epoch(data_of(folder))  # one pair validates: 4 inputs and 5 targets train
    assert seen["input"].shape == seen["target"].shape == (4 * 5, 1, 32, 48)


def test_patches_do_not_depend_on_workers(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    alone, several = (data_of(folder, augmentations=[FLIP], workers=workers) for workers in (0, 2))
    for number in range(2):
        one, other = epoch(alone, number), epoch(several, number)
        assert torch.equal(one["input"], other["input"])
        assert torch.equal(one["target"], other["target"])
    assert not torch.equal(epoch(alone, 0)["input"], epoch(alone, 1)["input"])
    assert not torch.equal(epoch(data_of(folder, seed=3))["input"], epoch(data_of(folder))["input"])


def test_inputs_are_drawn_without_regard_to_the_targets(
    folder: Path, tmp_path: Path, tiles: Tiles, data_of: Callable[..., ImagePairs]
) -> None:
    before = epoch(data_of(folder, augmentations=[FLIP]))
    write(folder, "targets", "ijk", tiles)
    after = epoch(data_of(folder, augmentations=[FLIP]))
    count = len(before["input"])
    assert len(after["input"]) == count + 3 * 4
    assert torch.equal(after["input"][:count], before["input"])
    assert not torch.equal(after["target"][:count], before["target"])


def test_partners_of_the_same_names_are_not_drawn_together(
    tmp_path: Path, write_pairs: Write, data_of: Callable[..., ImagePairs]
) -> None:
    write_pairs(tmp_path / "set", "abcdef")
    for file in (tmp_path / "set" / "images").iterdir():
        shutil.copy(file, tmp_path / "set" / "targets")
    seen = epoch(data_of(tmp_path / "set", patches_per_image=20))
    equal = [torch.equal(i, t) for i, t in zip(seen["input"], seen["target"], strict=True)]
    assert sum(equal) < 5


def test_statistics_of_the_dataset_are_those_of_the_side_that_trains(
    folder: Path, tiles: Tiles, data_of: Callable[..., ImagePairs]
) -> None:
    of_dataset = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["batch", "channel", "y", "x"]}}]
    data = data_of(folder, target_preprocessing=of_dataset)
    raw = np.concatenate([tifffile.imread(path).ravel() for path in data.pairs.targets]).astype(np.float64)
    prepared = data._require_prepared().targets[0]
    expected = (tifffile.imread(data.pairs.targets[0]) - raw.mean()) / (raw.std() + 1e-6)
    np.testing.assert_allclose(np.load(prepared.image)[0], expected, atol=1e-5)


def test_statistics_of_a_partner_are_refused(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    scale = {
        "axes": ["channel", "y", "x"],
        "min_percentile": 0,
        "max_percentile": 100,
        "reference_tensor": "input",
    }
    with pytest.raises(DataError, match=r"target\.preprocessing refers to the input.*unpaired"):
        data_of(folder, target_preprocessing=[{"id": "scale_range", "kwargs": scale}])


def test_small_targets_and_other_channels_are_listed(
    folder: Path, tiles: Tiles, data_of: Callable[..., ImagePairs]
) -> None:
    write(folder, "targets", "g", tiles, np.s_[:20, :80])
    with pytest.raises(DataError, match=r"(?s)smaller than data\.patch_size.*targets/g\.tif: y 20 × x 80"):
        data_of(folder)
    both = np.stack(tiles[6])
    tifffile.imwrite(folder / "targets" / "g.tif", both, metadata={"axes": "CYX"}, ome=True)
    with pytest.raises(DataError, match=r"(?s)target images have 1 channel.*targets/g\.tif: 2"):
        data_of(folder)


def test_validation_is_of_pairs(folder: Path, data_of: Callable[..., ImagePairs], recipe_for: Make) -> None:
    data = data_of(folder)
    assert sum(len(b["input"]) for b in data.val_dataloader()) == 2 * 2  # 64 x 80 in patches of 32 x 48
    [sample] = open_validation_pairs(recipe_for(folder, pairing="unpaired"))
    assert sample.name == data.pairs.validation[0].name
