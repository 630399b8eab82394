from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from im2im_zoo.core.errors import DataError, ImageError
from im2im_zoo.data import ImagePair, find_pairs, open_validation_pairs
from im2im_zoo.data.pairing.image_pair import check_image_pairs, open_image_pair
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.images import open_image
from im2im_zoo.recipe import Recipe

Tiles = list[tuple[np.ndarray, np.ndarray]]
Make = Callable[..., Recipe]
Write = Callable[..., Path]


def save(path: Path, array: np.ndarray, axes: str) -> Path:
    tifffile.imwrite(path, array, metadata={"axes": axes.upper()}, ome=path.name.endswith(".ome.tif"))
    return path


def opened(recipe: Recipe, input_path: Path, target_path: Path) -> ImagePair:
    return open_image_pair(Pair("p", input_path, target_path), recipe)


def test_a_channel_axis_is_added_without_reading_the_image(
    tmp_path: Path, tiles: Tiles, recipe_for: Make
) -> None:
    image = save(tmp_path / "a.tif", tiles[0][0], "yx")
    sample = opened(recipe_for(tmp_path), image, image)
    assert sample.input.dims == ("channel", "y", "x")
    assert sample.input.dtype == np.uint16
    image.unlink()  # a lazy image misses its file only when it is read
    with pytest.raises(ImageError, match=r"a\.tif"):
        sample.input.to_numpy()


def test_axes_are_found_by_name_and_put_in_the_recipes_order(
    tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray], recipe_for: Make
) -> None:
    volume, labels = nuclei_3d
    both = np.stack([volume, labels], axis=1)
    image = save(tmp_path / "a.ome.tif", both, "zcyx")
    target = save(tmp_path / "b.ome.tif", labels, "zyx")
    sample = opened(recipe_for(tmp_path, axes="zyx"), image, target)
    assert sample.input.dims == sample.target.dims == ("channel", "z", "y", "x")
    np.testing.assert_array_equal(sample.input, both.transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(sample.target, labels[None])


def test_any_region_of_an_arranged_image_is_that_of_the_whole(
    tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray], recipe_for: Make, write_ome_zarr: Write
) -> None:
    volume, labels = nuclei_3d
    czyx = np.stack([volume, labels, volume // 2])
    path = write_ome_zarr(tmp_path / "a.zarr", czyx.transpose(0, 3, 1, 2)[None], "tcxzy")
    recipe = recipe_for(tmp_path, axes="zyx", input_channels=[2, 0], target_channels=[1])
    sample = opened(recipe, path, path)
    whole = czyx[[2, 0]]
    np.testing.assert_array_equal(sample.input, whole)
    for region in (
        {"z": slice(3, 9), "x": slice(10, 40, 3)},
        {"channel": 1, "y": 7},
        {"z": -1, "channel": slice(0, 1)},
        {"z": 2, "y": 3, "x": 4},
    ):
        expected = sample.input.copy(data=whole).isel(region)
        np.testing.assert_array_equal(sample.input.isel(region).to_numpy(), expected)
        assert sample.input.isel(region).dims == expected.dims
    added = sample.target.isel(channel=0, z=4)
    np.testing.assert_array_equal(added, labels[4])


def test_channels_of_one_ome_zarr_are_input_and_target(
    tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray], recipe_for: Make, write_ome_zarr: Write
) -> None:
    volume, labels = nuclei_3d
    for name in ("a", "b"):
        both = np.stack([labels, volume])
        write_ome_zarr(
            tmp_path / f"{name}.zarr", both, "czyx", pixel_size_um=0.5, channel_names=["nucleus", "DNA"]
        )
    recipe = recipe_for(
        tmp_path, axes="zyx", pairing="channels", input_channels=["DNA"], target_channels=["nucleus"]
    )
    [sample] = open_validation_pairs(recipe)
    np.testing.assert_array_equal(sample.input, volume[None])
    np.testing.assert_array_equal(sample.target, labels[None])
    assert sample.input["channel"].values.tolist() == ["DNA"]
    assert sample.input.attrs["pixel_size_um"] == {"z": 0.5, "y": 0.5, "x": 0.5}


def test_validation_samples_are_those_of_the_split(
    tmp_path: Path, write_pairs: Write, recipe_for: Make
) -> None:
    recipe = recipe_for(write_pairs(tmp_path, "abcdef"), validation=0.5, seed=7)
    expected = [p.name for p in find_pairs(recipe.data, 7).validation]
    assert [s.name for s in open_validation_pairs(recipe)] == expected


def test_declared_axes_replace_those_of_the_file(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    stack = np.stack([t[0] for t in tiles[:3]])
    np.save(tmp_path / "a.npy", stack)
    with pytest.raises(DataError, match=r"data\.input_axes"):
        opened(recipe_for(tmp_path), tmp_path / "a.npy", tmp_path / "a.npy")
    recipe = recipe_for(tmp_path, input_axes="cyx", target_axes="cyx")
    sample = opened(recipe, tmp_path / "a.npy", tmp_path / "a.npy")
    np.testing.assert_array_equal(sample.input, stack)


def test_axes_of_size_one_are_dropped(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    image = save(tmp_path / "a.ome.tif", tiles[0][0][None, None], "tzyx")
    sample = opened(recipe_for(tmp_path), image, image)
    np.testing.assert_array_equal(sample.input, tiles[0][0][None])


@pytest.mark.parametrize(
    ("axes", "recipe_axes", "message"),
    [
        ("zyx", "yx", r"a\.ome\.tif has the axes 'zyx' \(4, 96, 112\).* needs 'cyx'.*: z is too much"),
        ("yx", "zyx", r"has the axes 'yx'.* needs 'czyx'.*z is missing"),
        ("tyx", "yx", r"the time axis has 4"),
        ("tyx", "zyx", r"the time axis has 4"),
    ],
)
def test_axes_that_do_not_fit_are_refused(
    tmp_path: Path, tiles: Tiles, recipe_for: Make, axes: str, recipe_axes: str, message: str
) -> None:
    stack = np.stack([t[0] for t in tiles[:4]])
    image = save(tmp_path / "a.ome.tif", stack if len(axes) == 3 else stack[0], axes)
    with pytest.raises(DataError, match=message) as caught:
        opened(recipe_for(tmp_path, axes=recipe_axes), image, image)
    assert "data.input_axes" in str(caught.value)


def test_choosing_channels_of_a_file_without_any_names_the_key(
    tmp_path: Path, tiles: Tiles, recipe_for: Make
) -> None:
    image = save(tmp_path / "a.tif", tiles[0][0], "yx")
    with pytest.raises(DataError, match=r"no channel axis.*data\.target_channels"):
        opened(recipe_for(tmp_path, target_channels=[1]), image, image)


def test_other_sizes_of_input_and_target_are_listed(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    image = save(tmp_path / "a.tif", tiles[0][0], "yx")
    target = save(tmp_path / "b.tif", tiles[0][1][:-1], "yx")
    with pytest.raises(DataError, match=r"(?s)a\.tif: y 96 × x 112.*b\.tif: y 95 × x 112"):
        opened(recipe_for(tmp_path), image, target)


def test_pixel_sizes_have_to_agree_within_a_hundredth(
    tmp_path: Path, tiles: Tiles, recipe_for: Make, write_ome_zarr: Write
) -> None:
    image, labels = tiles[0]
    paths = {
        size: write_ome_zarr(tmp_path / f"{size}.zarr", image, "yx", pixel_size_um=size)
        for size in (0.5, 0.502, 0.51)
    }
    unknown = save(tmp_path / "unknown.tif", labels, "yx")
    recipe = recipe_for(tmp_path)
    opened(recipe, paths[0.5], paths[0.502])
    opened(recipe, paths[0.5], unknown)
    with pytest.raises(DataError, match=r"along y is 0\.5 µm in .*0\.5\.zarr but 0\.51 µm"):
        opened(recipe, paths[0.5], paths[0.51])


def test_samples_with_other_channel_counts_are_listed(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    recipe = recipe_for(tmp_path)
    samples = []
    for number, (image, _) in enumerate(tiles[:4]):
        array = np.stack([image, image]) if number == 2 else image
        path = save(tmp_path / f"{number}.ome.tif", array, "cyx"[-array.ndim :])
        samples.append(opened(recipe, path, path))
    with pytest.raises(
        DataError, match=r"(?s)have 1 channel,.*data\.input_channels.*2\.ome\.tif: 2"
    ) as caught:
        check_image_pairs(samples, recipe)
    assert "1.ome.tif" not in str(caught.value)


def test_a_name_for_each_input_channel_is_needed(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    image = save(tmp_path / "a.tif", tiles[0][0], "yx")
    recipe = recipe_for(tmp_path, channels=["DNA", "membrane"])
    with pytest.raises(DataError, match=r"input\.channels has 2 names.*have 1"):
        check_image_pairs([opened(recipe, image, image)], recipe)


def test_images_smaller_than_a_patch_are_listed(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    recipe = recipe_for(tmp_path, patch_size=[64, 112])
    paths = [save(tmp_path / "a.tif", tiles[0][0], "yx"), save(tmp_path / "b.tif", tiles[0][0][:60], "yx")]
    samples = [opened(recipe, path, path) for path in paths]
    with pytest.raises(
        DataError, match=r"(?s)data\.patch_size, y 64 × x 112.*b\.tif: y 60 × x 112"
    ) as caught:
        check_image_pairs(samples, recipe)
    assert "a.tif" not in str(caught.value)


def test_attributes_of_the_file_are_kept(tmp_path: Path, tiles: Tiles, recipe_for: Make) -> None:
    image = save(tmp_path / "a.tif", tiles[0][0], "yx")
    assert opened(recipe_for(tmp_path), image, image).input.attrs == open_image(image).attrs


def test_greyscale_and_colour_images_are_told_apart_and_read_as_grey(
    tmp_path: Path, recipe_for: Callable[..., Recipe]
) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (96, 112, 3), np.uint8)
    for name, voxels in (("a", colours), ("b", colours[..., 0]), ("c", colours[..., 1])):
        for kind, array in (("images", voxels), ("targets", colours[..., 0] > 99)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    recipe = recipe_for(tmp_path)
    pairs = find_pairs(recipe.data, 0)
    every = [*pairs.train, *pairs.validation]
    with pytest.raises(
        DataError, match=r"2 input images are greyscale and 1 are colour .*input_channels=\[grey\]"
    ) as told:
        check_image_pairs([open_image_pair(pair, recipe) for pair in every], recipe)
    assert str(told.value).endswith("a.png: colour")
    grey = recipe_for(tmp_path, input_channels=["grey"])
    check_image_pairs([open_image_pair(pair, grey) for pair in every], grey)


def test_a_palette_is_labels_in_a_target_and_colours_in_an_input(
    tmp_path: Path, recipe_for: Callable[..., Recipe]
) -> None:
    indices = np.random.default_rng(0).integers(0, 2, (96, 112), np.uint8)
    for kind in ("images", "targets"):
        (tmp_path / kind).mkdir()
        for name in ("a", "b"):
            picture = Image.fromarray(indices).convert("P")
            picture.putpalette([0, 0, 0, 255, 0, 0])
            picture.save(tmp_path / kind / f"{name}.png")
    recipe = recipe_for(tmp_path)
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"task": "semantic"})})
    pair = open_image_pair(find_pairs(recipe.data, 0).train[0], recipe)
    np.testing.assert_array_equal(pair.target.values, indices[None])
    np.testing.assert_array_equal(pair.input.values, np.stack([255 * indices, 0 * indices, 0 * indices]))
