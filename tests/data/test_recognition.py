"""How the images of a folder belong together is recognised from their names, in the layouts that people have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.check.examine import examine
from im2im_zoo.data.pairing.guess import guess_recipe
from im2im_zoo.data.pairing.pairing import find_pairs, find_skipped
from im2im_zoo.data.pairing.recognition import recognize
from im2im_zoo.recipe import Data

Make = Callable[..., Any]


def touch(folder: Path, names: Sequence[str]) -> Path:
    """Write a small image of its own at each path; those of even numbers are label images."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.arange(64, dtype=np.uint16).reshape(8, 8) + number
        tifffile.imwrite(path, image, metadata={"axes": "YX"})
    return folder


def pairs_in(folder: Path, **options: Any) -> dict[str, tuple[str, str]]:
    data = Data(**recognize(folder, **options).fields)
    found = find_pairs(data, 0)
    return {
        p.name: (p.input.relative_to(folder).as_posix(), p.target.relative_to(folder).as_posix())  # type: ignore[union-attr]
        for p in (*found.train, *found.validation)
    }


LAYOUTS = {
    "subfolders": ("images/{}.tif", "targets/{}.tif"),
    "masks": ("images/{}.tif", "masks/{}.tif"),
    "raw and gt": ("raw/{}.tif", "GT/{}.tif"),
    "source and target": ("source/{}.tif", "target/{}.tif"),
    "low and high": ("low/{}.tif", "high/{}.tif"),
    "names differ in folders": ("images/{}_raw.tif", "masks/{}_mask.tif"),
    "nnU-Net": ("imagesTr/{}_0000.tif", "labelsTr/{}.tif"),
    "suffix": ("{}.tif", "{}_masks.tif"),
    "cellpose": ("{}.tif", "{}_cp_masks.tif"),
    "omnipose": ("{}.tif", "masks_{}_cp_masks.tif"),
    "prefix": ("{}.tif", "mask_{}.tif"),
    "two prefixes": ("img_{}.tif", "label_{}.tif"),
    "two suffixes": ("{}_low.tif", "{}_GT.tif"),
    "both suffixes of ours": ("{}_IM.tif", "{}_GT.tif"),
    "channel and mask": ("{}_ch00.tif", "{}_masks.tif"),
    "camel case": ("{}Raw.tif", "{}Label.tif"),
    "a folder a sample": ("{}/image.tif", "{}/mask.tif"),
    "masks beside a folder": ("{}.tif", "masks/{}.tif"),
    "nested": ("data/images/{}.tif", "data/labels/{}.tif"),
    "other formats": ("{}.ome.tif", "{}_seg.tiff"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize(
    "names", [("a1", "b_2", "s03_t1"), ("pos1_z01", "pos1_z02")], ids=["names", "planes"]
)
def test_a_layout_is_recognised(layout: tuple[str, str], names: Sequence[str], tmp_path: Path) -> None:
    image, target = layout
    touch(tmp_path, [form.format(name) for name in names for form in layout])
    assert set(pairs_in(tmp_path).values()) == {(image.format(n), target.format(n)) for n in names}


@pytest.mark.parametrize(
    ("parts", "split"),
    [(("train", "val"), "folders"), (("training", "validation"), "folders"), (("train", "test"), "random")],
)
def test_a_split_into_folders_is_recognised(parts: tuple[str, str], split: str, tmp_path: Path) -> None:
    for part in parts:
        touch(tmp_path / part, [f"{kind}/{part}{n}.tif" for kind in ("images", "masks") for n in (1, 2)])
    layout = recognize(tmp_path)
    found = find_pairs(Data(**layout.fields), 0)
    held_out = [p.name for p in found.validation]
    if split == "folders":
        assert held_out == [f"{parts[1]}1", f"{parts[1]}2"]
    else:
        assert {p.name for p in (*found.train, *found.validation)} == {"train1", "train2"}
        assert all("test" in p.parts for p in layout.others)


def test_results_of_other_programs_are_not_used(tmp_path: Path) -> None:
    kinds = ("{}.tif", "{}_masks.tif", "{}_flows.tif", "{}_outlines.tif")
    touch(tmp_path, [kind.format(name) for name in ("a", "b") for kind in kinds])
    assert set(pairs_in(tmp_path).values()) == {("a.tif", "a_masks.tif"), ("b.tif", "b_masks.tif")}


def test_images_without_partners_are_left_out_and_listed(tmp_path: Path, recipe_for: Make) -> None:
    touch(tmp_path, ["a.tif", "a_masks.tif", "b.tif", "b_masks.tif", "c.tif", "d_masks.tif"])
    layout = recognize(tmp_path)
    assert [p.name for p in layout.unpaired] == ["c.tif", "d_masks.tif"]
    assert [p.name for p in find_skipped(Data(**layout.fields))] == ["c.tif", "d_masks.tif"]
    strict = dict(layout.fields) | {"skip_unpaired": False}
    with pytest.raises(DataError, match=r"(?s)do not pair.*c\.tif.*d_masks\.tif"):
        find_pairs(Data(**strict), 0)
    [finding] = [f for f in examine(guess_recipe(tmp_path)).findings if f.code == "unpaired"]
    assert [Path(f).name for f in finding.files] == ["c.tif", "d_masks.tif"]


def test_masks_are_never_images(tmp_path: Path) -> None:
    touch(tmp_path, ["a.tif", "a_cp_masks.tif", "b.tif", "b_cp_masks.tif"])
    with pytest.raises(DataError, match=r"(?s)targets of others.*data\.ignore: \['\*_cp_masks\.\*'\]"):
        find_pairs(Data(path=tmp_path, pairing="self", input="."), 0)
    layout = recognize(tmp_path, paired=False)
    found = find_pairs(Data(**layout.fields), 0)
    assert {p.name for p in (*found.train, *found.validation)} == {"a", "b"}


@pytest.mark.parametrize("names", [("a.tif", "b.tif"), ("img_1.tif", "img_2.tif"), ("x_t1.tif", "x_t2.tif")])
def test_images_alone_are_images_alone(names: Sequence[str], tmp_path: Path) -> None:
    touch(tmp_path, names)
    assert recognize(tmp_path).fields["pairing"] == "self"


def test_two_folders_are_told_apart_by_labels(tmp_path: Path) -> None:
    touch(tmp_path, ["dapi/a.tif", "dapi/b.tif", "objects/a.tif", "objects/b.tif"])
    for name in "ab":
        labels = np.zeros((8, 8), np.uint16)
        labels[2:5, 2:5] = 1
        tifffile.imwrite(tmp_path / "objects" / f"{name}.tif", labels, metadata={"axes": "YX"})
    assert recognize(tmp_path).fields["target"] == "objects"
    tifffile.imwrite(tmp_path / "dapi" / "a.tif", labels, metadata={"axes": "YX"})
    with pytest.raises(DataError, match="--images"):
        recognize(tmp_path)


def test_patterns_that_are_given_are_used(tmp_path: Path) -> None:
    touch(tmp_path, ["p1/x.tif", "p1/y.tif", "p2/x.tif", "p2/y.tif"])
    found = pairs_in(tmp_path, inputs="{name}/y.tif", targets="{name}/x.tif")
    assert found == {"p1": ("p1/y.tif", "p1/x.tif"), "p2": ("p2/y.tif", "p2/x.tif")}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("masks", r"is not a pattern"),
        ("../{name}", r"is not a pattern"),
        ("no/{name}", r"no image in .* matches"),
    ],
)
def test_a_wrong_pattern_is_named(pattern: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, ["a.tif", "b.tif"])
    with pytest.raises(DataError, match=message):
        find_pairs(Data(path=tmp_path, pairing="patterns", input="{name}", target=pattern), 0)


@pytest.mark.parametrize("header", ["image,mask", "Filename raw;Ground truth", "input,target"])
def test_the_columns_of_a_table_are_recognised(header: str, tmp_path: Path) -> None:
    touch(tmp_path, ["a.tif", "b.tif", "x.tif", "y.tif"])
    separator = ";" if ";" in header else ","
    table = tmp_path / "pairs.csv"
    table.write_text(f"{header}\na.tif{separator}x.tif\nb.tif{separator}y.tif\n")
    found = find_pairs(Data(**recognize(table).fields), 0)
    files = {(Path(str(p.input)).name, Path(str(p.target)).name) for p in (*found.train, *found.validation)}
    assert files == {("a.tif", "x.tif"), ("b.tif", "y.tif")}


def test_a_folder_that_cannot_be_told_names_its_folders(tmp_path: Path) -> None:
    touch(tmp_path, ["one/a.tif", "two/b.tif"])
    with pytest.raises(DataError, match=r"(?s)in several folders.*one: 1 images.*two: 1 images"):
        recognize(tmp_path)
    with pytest.raises(DataError, match="there are no images"):
        recognize(touch(tmp_path / "empty", []) if (tmp_path / "empty").mkdir() is None else tmp_path)


def test_a_pattern_of_images_alone_is_refused_and_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --targets"):
        recognize(tmp_path, "{name}.tif")
