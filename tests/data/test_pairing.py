import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs, hash_pairs
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.recipe import Data

NAMES = ("a", "b", "c", "d", "e", "f")


def data(path: Path, **fields: Any) -> Data:
    return Data(path=path, patch_size=(32, 32), **fields)


def everything(path: Path, **fields: Any) -> list[Pair]:
    pairs = find_pairs(data(path, **fields), seed=0)
    return sorted([*pairs.train, *pairs.validation], key=lambda p: p.name)


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    return write_pairs(tmp_path / "set", NAMES)


@pytest.fixture
def flat(folder: Path, tmp_path: Path) -> Path:
    """The same images in one folder, as `a_IM.tif` and `a_GT.tif`."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in NAMES:
        shutil.copy(folder / "images" / f"{name}.tif", flat / f"{name}_IM.tif")
        shutil.copy(folder / "targets" / f"{name}.tif", flat / f"{name}_GT.tif")
    return flat


def write_table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_folders_pair_by_stem_whatever_the_format(folder: Path) -> None:
    np.save(folder / "targets" / "a.npy", tifffile.imread(folder / "targets" / "a.tif"))
    (folder / "targets" / "a.tif").unlink()
    (folder / "targets" / "b.tif").rename(folder / "targets" / "b.ome.tif")
    (folder / "images" / "notes.txt").write_text("not an image")
    (folder / "images" / ".hidden.tif").write_bytes(b"")
    pairs = everything(folder)
    assert [p.name for p in pairs] == list(NAMES)
    assert pairs[0] == Pair("a", folder / "images" / "a.tif", folder / "targets" / "a.npy")
    assert pairs[1].target == folder / "targets" / "b.ome.tif"


def test_subfolders_can_have_other_names(folder: Path) -> None:
    (folder / "images").rename(folder / "raw")
    (folder / "targets").rename(folder / "masks")
    assert len(everything(folder, input="raw", target="masks")) == len(NAMES)


def test_an_ome_zarr_folder_is_one_image(
    folder: Path, write_ome_zarr: Callable[..., Path], tiles: list[Any]
) -> None:
    (folder / "images" / "a.tif").unlink()
    zarr = write_ome_zarr(folder / "images" / "a.ome.zarr", tiles[0][0], "yx")
    assert everything(folder)[0] == Pair("a", zarr, folder / "targets" / "a.tif")


def test_suffixes_pair_within_one_folder(flat: Path) -> None:
    pairs = everything(flat, pairing="suffixes")
    assert [p.name for p in pairs] == list(NAMES)
    assert pairs[2] == Pair("c", flat / "c_IM.tif", flat / "c_GT.tif")


def test_an_empty_input_suffix_leaves_the_targets_to_theirs(flat: Path) -> None:
    for name in NAMES:
        (flat / f"{name}_IM.tif").rename(flat / f"{name}.tif")
    pairs = everything(flat, pairing="suffixes", input="", target="_GT")
    assert [p.input.name for p in pairs] == [f"{name}.tif" for name in NAMES]


def test_channels_pair_a_file_with_itself(folder: Path) -> None:
    pairs = everything(folder / "images", pairing="channels", input_channels=(0,), target_channels=(1,))
    assert [p.name for p in pairs] == list(NAMES)
    assert all(p.input == p.target for p in pairs)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_names_paths_relative_to_itself_and_absolute(folder: Path, delimiter: str) -> None:
    rows = [(f"images/{n}.tif", str(folder / "targets" / f"{n}.tif"), "ignored") for n in NAMES]
    lines = [delimiter.join(row) for row in [("raw", "mask", "note"), *rows]]
    table = write_table(folder / "pairs.csv", "\ufeff" + lines[0], *lines[1:], "")
    pairs = everything(table, pairing="csv", input="raw", target="mask")
    assert [p.name for p in pairs] == list(NAMES)
    assert pairs[0] == Pair("a", folder / "images" / "a.tif", folder / "targets" / "a.tif")


def test_a_column_can_say_the_split(folder: Path) -> None:
    lines = [f"images/{n}.tif,targets/{n}.tif,{'val' if n in 'be' else 'train'}" for n in NAMES]
    table = write_table(folder / "pairs.csv", "input,target,split", *lines)
    pairs = find_pairs(data(table, pairing="csv", split="column"), seed=0)
    assert [p.name for p in pairs.validation] == ["b", "e"]
    assert [p.name for p in pairs.train] == ["a", "c", "d", "f"]


def test_equal_file_names_of_a_table_are_told_apart_by_their_folders(
    tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    for number, plate in enumerate(("p1", "p2")):
        write_pairs(tmp_path / plate, ["a"], first=number)
    lines = [f"{p}/images/a.tif,{p}/targets/a.tif" for p in ("p1", "p2")]
    table = write_table(tmp_path / "pairs.csv", "input,target", *lines)
    assert [p.name for p in everything(table, pairing="csv")] == ["p1-images-a", "p2-images-a"]


@pytest.mark.parametrize("pairing", ["folders", "suffixes", "channels"])
def test_train_and_val_folders_split(tmp_path: Path, write_pairs: Callable[..., Path], pairing: str) -> None:
    for part, names, first in (("train", ["a", "b", "c"], 0), ("val", ["a", "z"], 3)):
        write_pairs(tmp_path / part, names, first)
        if pairing == "suffixes":
            for kind, ending in (("images", "_IM"), ("targets", "_GT")):
                for file in (tmp_path / part / kind).iterdir():
                    file.rename(tmp_path / part / f"{file.stem}{ending}.tif")
        if pairing == "channels":
            for file in (tmp_path / part / "images").iterdir():
                file.rename(tmp_path / part / file.name)
    fields = {"input_channels": (0,), "target_channels": (0,)} if pairing == "channels" else {}
    pairs = find_pairs(data(tmp_path, pairing=pairing, split="folders", **fields), seed=0)
    assert [p.name for p in pairs.train] == ["a", "b", "c"]
    assert [p.name for p in pairs.validation] == ["a", "z"]
    assert pairs.train[0].input.is_relative_to(tmp_path / "train")


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.34, 2), (0.5, 3), (0.99, 5)])
def test_the_random_split_is_disjoint_complete_and_of_the_fraction(
    folder: Path, fraction: float, expected: int
) -> None:
    pairs = find_pairs(data(folder, validation=fraction), seed=3)
    names = [[p.name for p in part] for part in (pairs.train, pairs.validation)]
    assert len(names[1]) == expected
    assert sorted([*names[0], *names[1]]) == list(NAMES)
    assert all(part == sorted(part) for part in names)


def test_the_random_split_depends_on_seed_and_names_only(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    found = {
        seed: tuple(p.name for p in find_pairs(data(folder, validation=0.5), seed).validation)
        for seed in range(8)
    }
    assert len(set(found.values())) > 2
    again = find_pairs(data(tmp_path / "elsewhere", validation=0.5), 5)
    assert tuple(p.name for p in again.validation) == found[5]


def test_an_input_without_target_and_the_reverse_are_listed(folder: Path) -> None:
    (folder / "images" / "a.tif").unlink()
    (folder / "targets" / "c.tif").unlink()
    (folder / "targets" / "d.tif").unlink()
    with pytest.raises(DataError) as caught:
        everything(folder)
    message = str(caught.value)
    inputs, targets = message.split("targets without an input")
    assert all(str(folder / "images" / f"{n}.tif") in inputs for n in "cd")
    assert str(folder / "targets" / "a.tif") in targets
    assert "b.tif" not in message


def test_long_lists_of_files_are_cut(tmp_path: Path) -> None:
    for kind in ("images", "targets"):
        (tmp_path / kind).mkdir()
    for number in range(30):
        (tmp_path / "images" / f"{number:02}.tif").touch()
    (tmp_path / "targets" / "x.tif").touch()
    with pytest.raises(DataError, match="and 20 more"):
        everything(tmp_path)


def test_no_images_says_what_was_looked_for_where(folder: Path) -> None:
    for file in (folder / "targets").iterdir():
        file.rename(file.with_suffix(".doc"))
    with pytest.raises(DataError, match=r"data\.target") as caught:
        everything(folder)
    assert str(folder / "targets") in str(caught.value)
    assert ".ome.zarr" in str(caught.value)
    assert "a.doc" in str(caught.value)


def test_a_missing_subfolder_lists_those_that_are_there(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.input.*raw.*images, targets"):
        everything(folder, input="raw")


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path.*nowhere does not exist"):
        everything(tmp_path / "nowhere")


def test_two_formats_of_one_stem_are_refused(folder: Path) -> None:
    (folder / "images" / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.png and a\.tif"):
        everything(folder)


def test_a_suffix_that_no_file_has_is_refused_with_the_files(flat: Path) -> None:
    with pytest.raises(DataError, match=r"data\.input: no name .* ends in '_BF'.*") as caught:
        everything(flat, pairing="suffixes", input="_BF")
    assert "a_IM.tif" in str(caught.value)


def test_equal_suffixes_are_refused(flat: Path) -> None:
    with pytest.raises(DataError, match="both '_GT'"):
        everything(flat, pairing="suffixes", input="_GT")


def test_a_missing_column_names_the_nearest_one(folder: Path) -> None:
    table = write_table(folder / "pairs.csv", "inputs,target", "images/a.tif,targets/a.tif")
    with pytest.raises(DataError, match=r"data\.input.*no column 'input'; did you mean 'inputs'"):
        everything(table, pairing="csv")


def test_files_that_a_table_names_in_vain_are_listed_with_their_line(folder: Path) -> None:
    table = write_table(
        folder / "pairs.csv", "input,target", "images/a.tif,targets/a.tif", "images/q.tif,targets/b.tif"
    )
    with pytest.raises(DataError, match=rf"line 3: {re.escape(str(folder))}/images/q\.tif"):
        everything(table, pairing="csv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "has no rows"),
        (("images/a.tif,,train",), "line 2: the column 'target' is empty"),
        (("images/a.tif,targets/a.tif,test",), "line 2: the column 'split' has 'test'"),
        (("images/a.tif,targets/a.tif,train",), "no row has 'val'"),
        (("images/a.tif,targets/a.tif,train", "images/a.tif,targets/b.tif,val"), "line 2 and line 3"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(folder: Path, lines: tuple[str, ...], message: str) -> None:
    table = write_table(folder / "pairs.csv", "input,target,split", *lines)
    with pytest.raises(DataError, match=message):
        find_pairs(data(table, pairing="csv", split="column"), seed=0)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00\x80,")
    with pytest.raises(DataError, match="cannot be read as a UTF-8 table"):
        everything(tmp_path / "pairs.csv", pairing="csv")


def test_one_pair_cannot_be_split_and_the_message_says_what_to_do(
    tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match=r"only one pair, 'a'.*train/ and val/.*data\.split: folders"):
        everything(write_pairs(tmp_path, ["a"]))


def test_train_and_val_folders_with_a_random_split_are_refused_with_a_hint(
    tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    for part in ("train", "val"):
        write_pairs(tmp_path / part, ["a", "b"])
    with pytest.raises(DataError, match=r"set data\.split: folders"):
        everything(tmp_path)


@pytest.mark.parametrize("how", ["copy", "link"])
def test_an_image_in_both_train_and_val_is_refused(
    tmp_path: Path, write_pairs: Callable[..., Path], how: str
) -> None:
    write_pairs(tmp_path / "train", ["a", "b"])
    write_pairs(tmp_path / "val", ["c"], first=3)
    for kind in ("images", "targets"):
        source, copy = tmp_path / "train" / kind / "b.tif", tmp_path / "val" / kind
        if how == "copy":
            shutil.copy(source, copy / "b.tif")
        else:
            (copy / "other_name.tif").symlink_to(source)
    with pytest.raises(DataError, match=r"in both training and validation.*\n.*val/images/"):
        everything(tmp_path, split="folders")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "column"}, r"data\.split: column needs data\.pairing: csv"),
        ({"pairing": "csv", "split": "folders"}, r"data\.split: folders cannot be combined"),
        ({"pairing": "channels"}, r"needs data\.input_channels and data\.target_channels"),
        ({"pairing": "channels", "input": "x"}, r"have no effect with data\.pairing: channels"),
        ({"pairing": "csv"}, r"give the path of the table"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        everything(folder, **fields)


def test_the_hash_follows_contents_names_and_split_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    def hashed(path: Path, seed: int = 0) -> str:
        return hash_pairs(find_pairs(data(path), seed))

    before = hashed(folder)
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert hashed(tmp_path / "elsewhere") == before
    assert len({hashed(folder, seed) for seed in range(8)}) > 1
    array = tifffile.imread(folder / "targets" / "b.tif")
    array[3, 4] += 1
    tifffile.imwrite(folder / "targets" / "b.tif", array, metadata={"axes": "YX"})
    assert hashed(folder) != before


def test_the_hash_follows_the_chunks_of_an_ome_zarr(
    folder: Path, write_ome_zarr: Callable[..., Path], tiles: list[Any]
) -> None:
    (folder / "images" / "a.tif").unlink()
    image = tiles[0][0].copy()
    write_ome_zarr(folder / "images" / "a.zarr", image, "yx")
    before = hash_pairs(find_pairs(data(folder), 0))
    image[0, 0] += 1
    write_ome_zarr(folder / "images" / "a.zarr", image, "yx")
    assert hash_pairs(find_pairs(data(folder), 0)) != before


def test_a_group_is_on_one_side_of_the_split(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    names = [f"{well}_f{field}" for well in ("A01", "A02", "B01", "B02") for field in (1, 2)]
    folder = write_pairs(tmp_path / "plate", names)
    for seed in range(5):
        pairs = find_pairs(data(folder, group=r"^([A-H]\d+)_", validation=0.4), seed)
        wells = [{pair.name[:3] for pair in side} for side in (pairs.train, pairs.validation)]
        assert not wells[0] & wells[1]
        assert len(pairs.validation) == 4  # the least number of whole wells that is 0.4 of the images
    with pytest.raises(DataError, match=r"does not match the name 'A01_f1'"):
        find_pairs(data(folder, group="C"), 0)
    with pytest.raises(DataError, match=r"not a regular expression"):
        find_pairs(data(folder, group="("), 0)
    with pytest.raises(DataError, match=r"1 groups of images"):
        find_pairs(data(folder, group="_f"), 0)


def test_folds_hold_out_each_image_once(folder: Path) -> None:
    held_out = [find_pairs(data(folder, folds=3, fold=fold), 0).validation for fold in range(3)]
    assert sorted(pair.name for fold in held_out for pair in fold) == list(NAMES)
    assert [len(fold) for fold in held_out] == [2, 2, 2]
    with pytest.raises(DataError, match=r"data\.folds smaller"):
        find_pairs(data(folder, folds=7), 0)
    with pytest.raises(ValueError, match="not one of 3 folds"):
        data(folder, folds=3, fold=3)


def test_a_table_says_groups_in_a_column(folder: Path) -> None:
    rows = [f"images/{n}.tif,targets/{n}.tif,{'xyz'[i // 2]}" for i, n in enumerate(NAMES)]
    table = write_table(folder / "t.csv", "input,target,mouse", *rows)
    pairs = find_pairs(data(table, pairing="csv", group="mouse", folds=3, fold=1), 0)
    assert [pair.name for pair in pairs.validation] in (["a", "b"], ["c", "d"], ["e", "f"])
    with pytest.raises(DataError, match=r"data\.group: .* has no column 'mous'"):
        find_pairs(data(table, pairing="csv", group="mous"), 0)


def test_a_group_in_both_folders_is_refused(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    write_pairs(tmp_path / "train", ["A01_1", "A02_1"])
    write_pairs(tmp_path / "val", ["A01_2"], first=2)
    assert len(find_pairs(data(tmp_path, split="folders"), 0).train) == 2
    with pytest.raises(DataError, match="groups are in both training and validation"):
        find_pairs(data(tmp_path, split="folders", group="^A.."), 0)
