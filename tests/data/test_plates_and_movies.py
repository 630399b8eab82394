"""Plates and movies as many images: found, named, kept together by the split, and read one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from preprocessed import preprocess

from im2im_zoo.core.errors import DataError, ImageError
from im2im_zoo.data import find_pairs
from im2im_zoo.data.check.examine import examine
from im2im_zoo.data.pairing.image_pair import open_image_pair
from im2im_zoo.recipe import Recipe

Make = Callable[..., Recipe]
Write = Callable[..., Path]
WELLS = ("A/1", "A/2", "B/1")


@pytest.fixture(params=["0.4", "0.5"])
def plate(tmp_path: Path, write_ome_zarr: Write, tiles: list[Any], request: pytest.FixtureRequest) -> Path:
    """A plate of three wells with two fields each, of two channels."""
    path = tmp_path / "set" / "screen.ome.zarr"

    def describe(folder: Path, content: dict[str, Any]) -> None:
        if request.param == "0.5":
            zarr.open_group(folder, mode="a", attributes={"ome": {"version": "0.5", **content}})
        else:
            (folder / ".zgroup").write_text('{"zarr_format": 2}')
            (folder / ".zattrs").write_text(json.dumps(content))

    numbers = iter(range(8))
    path.mkdir(parents=True)
    describe(path, {"plate": {"wells": [{"path": well} for well in WELLS]}})
    for well in WELLS:
        (path / well).mkdir(parents=True)
        describe(path / well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for field in "01":
            write_ome_zarr(path / well / field, np.stack(tiles[next(numbers)]), "cyx")
    return path


def test_the_fields_of_a_plate_are_images_and_its_wells_are_not_parted(
    plate: Path, recipe_for: Make, tiles: list[Any]
) -> None:
    options = {"pairing": "channels", "input_channels": [0], "target_channels": [1], "validation": 0.3}
    for place in (plate, plate.parent):
        recipe = recipe_for(place, **options)
        for seed in range(4):
            pairs = find_pairs(recipe.data, seed)
            assert len(pairs.validation) == 2
            assert len({pair.name.rpartition("-")[0] for pair in pairs.validation}) == 1
    names = sorted(pair.name for pair in (*pairs.train, *pairs.validation))
    assert names == [f"screen-{well.replace('/', '-')}-{field}" for well in WELLS for field in "01"]
    [third] = [pair for pair in (*pairs.train, *pairs.validation) if pair.name == "screen-A-2-1"]
    np.testing.assert_array_equal(open_image_pair(third, recipe).input.to_numpy()[0], tiles[3][0])
    assert examine(recipe).findings == ()


def test_a_damaged_plate_is_named(tmp_path: Path, recipe_for: Make) -> None:
    (tmp_path / "p.zarr").mkdir()
    (tmp_path / "p.zarr" / ".zattrs").write_text('{"plate": {"wells": [{"path": "A/1"}]}}')
    options = {"pairing": "channels", "input_channels": [0], "target_channels": [1]}
    with pytest.raises(ImageError, match=r"p\.zarr: is a plate, but its metadata"):
        find_pairs(recipe_for(tmp_path, **options).data, 0)
    assert [finding.code for finding in examine(recipe_for(tmp_path, **options)).findings] == ["pairing"]


@pytest.fixture
def movies(tmp_path: Path, write_ome_zarr: Write, tiles: list[Any]) -> Path:
    """Two movies of three time points, and one image."""
    for name, first in (("a", 0), ("b", 3)):
        for kind, side in (("images", 0), ("targets", 1)):
            movie = np.stack([tiles[first + t][side] for t in range(3)])
            write_ome_zarr(tmp_path / kind / f"{name}.zarr", movie, "tyx")
    for kind, side in (("images", 0), ("targets", 1)):
        write_ome_zarr(tmp_path / kind / "c.zarr", tiles[6][side], "yx")
    return tmp_path


def test_time_points_are_images_and_movies_are_not_parted(
    movies: Path, recipe_for: Make, tiles: list[Any], tmp_path: Path
) -> None:
    recipe = recipe_for(movies, time_points=True, validation=0.4)
    pairs = find_pairs(recipe.data, 0)
    everything = sorted((*pairs.train, *pairs.validation), key=lambda pair: pair.name)
    assert [pair.name for pair in everything] == [*(f"{m}_t{t:04}" for m in "ab" for t in range(3)), "c"]
    sides = [{pair.name[0] for pair in side} for side in (pairs.train, pairs.validation)]
    assert not sides[0] & sides[1]
    prepared = preprocess(pairs, recipe, tmp_path / "cache")
    found = {one.name: one for one in (*prepared.train, *prepared.validation)}
    np.testing.assert_array_equal(np.load(found["b_t0001"].input)[0], tiles[4][0].astype(np.float32))
    np.testing.assert_array_equal(np.load(found["b_t0002"].target)[0], tiles[5][1].astype(np.float32))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 14
    assert examine(recipe).findings == ()


def test_a_movie_without_the_key_says_what_to_set_and_lengths_have_to_match(
    movies: Path, recipe_for: Make, write_ome_zarr: Write, tiles: list[Any]
) -> None:
    with pytest.raises(DataError, match=r"set data\.time_points"):
        preprocess(find_pairs(recipe_for(movies).data, 0), recipe_for(movies), movies / "cache")
    write_ome_zarr(movies / "targets" / "a.zarr", np.stack([tiles[0][1]] * 2), "tyx")
    with pytest.raises(DataError, match=r"has 3 time points and .* has 2"):
        find_pairs(recipe_for(movies, time_points=True).data, 0)
