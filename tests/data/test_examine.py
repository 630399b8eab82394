"""What is found in a set of images: one fault is put into real pairs at a time, and nothing else is told of."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from PIL import Image

from im2im_zoo.data.check.examine import Examination, examine
from im2im_zoo.data.check.voxels import measure_voxels
from im2im_zoo.data.pairing.guess import guess_recipe
from im2im_zoo.data.pairing.splitting import guess_group
from im2im_zoo.images import open_image
from im2im_zoo.recipe import Recipe

Make = Callable[..., Recipe]
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    return write_pairs(tmp_path / "set", NAMES)


def codes(found: Examination) -> dict[str, str]:
    return {finding.code: finding.severity for finding in found.findings}


def rewrite(file: Path, change: Callable[[np.ndarray], np.ndarray], **options: Any) -> None:
    tifffile.imwrite(file, change(tifffile.imread(file)), metadata={"axes": "YX"}, **options)


def test_nothing_is_found_in_sound_images(folder: Path, recipe_for: Make) -> None:
    steps: list[tuple[int, int, str]] = []
    found = examine(recipe_for(folder), progress=lambda *now: steps.append(now))
    assert found.findings == ()
    assert found.is_sound
    assert [step[0] for step in steps] == list(range(1, 11))
    assert {entry.part for entry in found.examined} == {"train", "validation"}


def test_a_copy_on_the_other_side_of_the_split_is_leakage_whatever_its_format(
    tmp_path: Path, write_pairs: Callable[..., Path], recipe_for: Make
) -> None:
    folder = tmp_path / "set"
    write_pairs(folder / "train", "ab")
    write_pairs(folder / "val", "c", first=2)
    copied = tifffile.imread(folder / "train" / "images" / "a.tif").astype(np.float32)
    (folder / "val" / "images" / "c.tif").unlink()
    np.save(folder / "val" / "images" / "c.npy", copied)
    found = examine(recipe_for(folder, split="folders", input_axes="yx", target_axes="yx"))
    [leak] = [finding for finding in found.findings if finding.code == "leakage"]
    assert leak.severity == "error"
    assert leak.names == ("c",)
    assert "a.tif" in leak.files[0]
    assert not found.is_sound


def test_a_copy_on_the_same_side_is_a_duplicate_and_its_other_target_a_contradiction(
    tmp_path: Path, write_pairs: Callable[..., Path], recipe_for: Make
) -> None:
    write_pairs(tmp_path / "train", "abc")
    write_pairs(tmp_path / "val", "d", first=3)
    shutil.copy(tmp_path / "train" / "images" / "a.tif", tmp_path / "train" / "images" / "b.tif")
    found = examine(recipe_for(tmp_path, split="folders"))
    assert codes(found) == {"duplicate": "warning", "contradiction": "warning"}
    assert found.is_sound


@pytest.mark.parametrize(
    ("file", "change", "task", "expected"),
    [
        (
            "images",
            lambda v: np.minimum(v * (4095 / np.percentile(v, 95)), 4095).astype(np.uint16),
            "semantic",
            {"saturated-image": "warning"},
        ),
        ("images", lambda v: np.full_like(v, 7), "semantic", {"constant-image": "warning"}),
        ("images", lambda v: v.astype(np.float32), "semantic", {"mixed-types": "warning"}),
        (
            "images",
            lambda v: np.where(v == v.max(), np.nan, v).astype(np.float32),
            "regression",
            {"not-finite": "error", "mixed-types": "warning"},
        ),
        ("targets", np.zeros_like, "semantic", {"empty-target": "warning"}),
        ("targets", lambda v: (v > 0).astype(np.uint16), "instance", {"one-label": "warning"}),
        ("targets", lambda v: v.astype(np.float32) / 2, "instance", {"labels": "error"}),
        ("targets", lambda v: v[:-1], "semantic", {"mismatch": "error"}),
        ("images", lambda v: np.stack([v, v, v]), "semantic", {"unreadable-image": "error"}),
    ],
    ids=["saturated", "constant", "type", "nan", "empty", "mask", "halves", "size", "axes"],
)
def test_each_fault_is_told_with_its_file(
    folder: Path,
    recipe_for: Make,
    file: str,
    change: Callable[[np.ndarray], np.ndarray],
    task: str,
    expected: dict[str, str],
) -> None:
    path = folder / file / "b.tif"
    made = change(tifffile.imread(path))
    tifffile.imwrite(path, made, metadata={"axes": "ZYX"[-made.ndim :]}, photometric="minisblack")
    recipe = recipe_for(folder)
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"task": task})})
    found = examine(recipe)
    assert codes(found) == expected
    assert all(finding.names == ("b",) for finding in found.findings)
    assert all(any("b.tif" in line for line in finding.files) for finding in found.findings)
    assert all(";" in finding.message for finding in found.findings)  # what to do stands behind it


def test_no_mask_with_anything_in_it_is_an_error(folder: Path, recipe_for: Make) -> None:
    for file in (folder / "targets").iterdir():
        rewrite(file, np.zeros_like)
    recipe = recipe_for(folder)
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"task": "semantic"})})
    assert codes(examine(recipe)) == {"empty-target": "error"}


def test_images_of_other_pixel_sizes_are_told(
    tmp_path: Path, write_ome_zarr: Callable[..., Path], tiles: list[Any], recipe_for: Make
) -> None:
    for number, (image, labels) in enumerate(tiles[:4]):
        size = None if number == 3 else 0.5 if number else 0.25
        write_ome_zarr(tmp_path / "images" / f"{number}.zarr", image, "yx", pixel_size_um=size)
        write_ome_zarr(tmp_path / "targets" / f"{number}.zarr", labels, "yx", pixel_size_um=size)
    found = examine(recipe_for(tmp_path), voxels=False)
    assert set(codes(found)) == {"mixed-pixel-sizes", "unknown-pixel-size"}
    assert {f.code: f.names for f in found.findings}["mixed-pixel-sizes"] == ("0",)
    assert all(entry.voxels is None for entry in found.examined)


def test_planes_of_one_stack_on_both_sides_are_told_unless_the_split_keeps_them_together(
    tmp_path: Path, write_pairs: Callable[..., Path], recipe_for: Make
) -> None:
    folder = write_pairs(tmp_path / "set", ["s_z1", "s_z2", "s_z3", "u_z1", "u_z2", "u_z3"])
    assert codes(examine(recipe_for(folder, validation=0.4))) == {"related-images": "warning"}
    assert codes(examine(recipe_for(folder, validation=0.4, group="^([a-z]+)_z"))) == {}


def test_an_image_that_is_too_small_and_other_channels_are_errors(folder: Path, recipe_for: Make) -> None:
    found = examine(recipe_for(folder, patch_size=[97, 32]))
    assert codes(found) == {"small-image": "error"}
    path = folder / "images" / "b.tif"
    tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 2), metadata={"axes": "CYX"})
    assert codes(examine(recipe_for(folder))) == {"channels": "error"}


def test_images_that_do_not_pair_are_one_finding(folder: Path, recipe_for: Make) -> None:
    (folder / "targets" / "c.tif").unlink()
    found = examine(recipe_for(folder))
    assert codes(found) == {"pairing": "error"}
    assert any("c.tif" in line for line in found.findings[0].files)


def test_fingerprints_are_of_values_and_places_whatever_the_chunks(
    tmp_path: Path, write_ome_zarr: Callable[..., Path], nuclei_3d: tuple[np.ndarray, np.ndarray]
) -> None:
    volume = nuclei_3d[0]
    plain = xr.DataArray(volume, dims=("z", "y", "x"))
    stored = measure_voxels(open_image(write_ome_zarr(tmp_path / "v.zarr", volume, "zyx")))
    assert stored == measure_voxels(plain)
    assert (stored.lowest, stored.highest) == (volume.min(), volume.max())
    assert stored.at_highest == (volume == volume.max()).sum()
    assert measure_voxels(plain[::-1].copy(data=volume[::-1])).fingerprint != stored.fingerprint
    swapped = volume.copy()
    swapped[0, 0, :2] = swapped[0, 0, 1::-1] + np.array([1, 0], volume.dtype)
    assert measure_voxels(plain.copy(data=swapped)).fingerprint != stored.fingerprint


def test_the_layout_of_a_folder_is_seen(folder: Path, tmp_path: Path) -> None:
    recipe = guess_recipe(folder)
    assert (recipe.data.pairing, recipe.data.split, recipe.output.task) == ("folders", "random", "semantic")
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in NAMES:
        shutil.copy(folder / "images" / f"{name}.tif", flat / f"{name}_IM.tif")
        shutil.copy(folder / "images" / f"{name}.tif", flat / f"{name}_GT.tif")
    recipe = guess_recipe(flat)
    assert (recipe.data.pairing, recipe.output.task) == ("suffixes", "regression")
    recipe = guess_recipe(folder / "images")
    assert (recipe.data.pairing, len(examine(recipe).examined)) == ("self", 5)


def test_labels_that_were_saved_as_pictures_are_told(folder: Path, recipe_for: Make) -> None:
    recipe = recipe_for(folder).model_copy(
        update={"output": recipe_for(folder).output.model_copy(update={"task": "semantic"})}
    )
    labels = tifffile.imread(folder / "targets" / "a.tif")
    colours = np.stack([labels * 3 % 256, labels * 5 % 256, labels], -1).astype(np.uint8)
    for name, ending in (("a", "png"), ("b", "jpg")):
        (folder / "targets" / f"{name}.tif").unlink()
        Image.fromarray(colours if ending == "png" else colours[..., 2]).save(
            folder / "targets" / f"{name}.{ending}"
        )
    found = {finding.code: finding for finding in examine(recipe).findings}
    assert found.keys() == {"channels", "colour-labels", "lossy-labels"}
    assert found["channels"].names == found["colour-labels"].names == ("a",)
    assert found["lossy-labels"].names == ("b",)


def test_a_name_that_is_nothing_but_counters_has_the_group_of_all_but_the_last() -> None:
    assert [guess_group(name) for name in ("s1_z01", "s1_z02", "s2_z01", "z7", "exp_s1_z01")] == [
        "s1",
        "s1",
        "s2",
        None,
        "exp",
    ]


def test_greyscale_pictures_that_were_saved_in_colours_are_told(folder: Path, recipe_for: Make) -> None:
    for path in sorted((folder / "images").iterdir()):
        plane = (tifffile.imread(path) // 256).astype(np.uint8)
        shift = np.uint8(path.stem == "a")
        Image.fromarray(np.dstack([plane, plane, plane + shift])).save(path.with_suffix(".png"))
        path.unlink()
    [found] = [f for f in examine(recipe_for(folder)).findings if f.code == "grey-colours"]
    assert "data.input_channels: [grey]" in found.message
    assert "a" not in found.names
    assert "b" in found.names
    read = recipe_for(folder, input_channels=["grey"])
    assert all(f.code != "grey-colours" for f in examine(read).findings)
    assert all(f.code != "grey-colours" for f in examine(recipe_for(folder), voxels=False).findings)
