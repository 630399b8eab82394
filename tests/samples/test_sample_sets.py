from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from skimage.color import rgb2hed

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs
from im2im_zoo.images import open_image
from im2im_zoo.recipe.load import load_recipe, recipe_names
from im2im_zoo.samples import SAMPLES, write_samples

PAIRED = [name for name, sample in SAMPLES.items() if sample.unpaired is None]
ALONE = [name for name, sample in SAMPLES.items() if sample.images_only]
UNPAIRED = [name for name, sample in SAMPLES.items() if sample.unpaired is not None]


def written(folder: Path, part: str, kind: str) -> xr.DataArray:
    [file] = (folder / part / kind).iterdir()
    return open_image(file)


def whole(name: str, kind: str) -> xr.DataArray:
    number = ("images", "targets").index(kind)
    return xr.DataArray(SAMPLES[name].pair()[number], dims=SAMPLES[name].axes[number])


def test_every_recipe_has_sample_images_and_only_recipes_do() -> None:
    assert set(SAMPLES) == set(recipe_names())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_recipe_finds_its_sample_images(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, [("data.path", str(write_samples(name, tmp_path / "images")))])
    pairs = find_pairs(recipe.data, recipe.seed)
    assert [pair.name for pair in pairs.validation] == [name]
    assert len(pairs.train) == (1 if name in PAIRED else 0)


@pytest.mark.parametrize("name", PAIRED)
def test_both_parts_together_are_the_whole_image(name: str, tmp_path: Path) -> None:
    folder = write_samples(name, tmp_path / "images")
    axis, first = SAMPLES[name].held_out
    for kind in ("images",) if name in ALONE else ("images", "targets"):
        parts = [written(folder, part, kind) for part in ("train", "val")]
        assert parts[0].sizes[axis] == first
        expected = whole(name, kind)
        np.testing.assert_array_equal(np.concatenate(parts, axis=expected.dims.index(axis)), expected)
        assert parts[0].dtype == expected.dtype


@pytest.mark.parametrize("name", ALONE)
def test_images_without_targets_have_clean_ones_beside_the_held_out_part_alone(
    name: str, tmp_path: Path
) -> None:
    folder = write_samples(name, tmp_path / "images")
    assert [path.name for path in (folder / "train").iterdir()] == ["images"]
    axis, first = SAMPLES[name].held_out
    expected = whole(name, "targets").isel({axis: slice(first, None)})
    np.testing.assert_array_equal(written(folder, "val", "targets"), expected)


def test_added_noise_has_the_mean_of_what_is_clean_and_the_variance_of_photons_and_read_noise() -> None:
    noisy, clean = (image.astype(float) for image in SAMPLES["denoising_n2v_2d"].pair())
    photons = (clean - 500) / 50
    for low, high in ((0, 1), (2, 4), (6, 12)):
        level = (photons >= low) & (photons < high)
        noise = (noisy - clean)[level] / 50
        assert abs(noise.mean()) < 0.03
        assert noise.var() == pytest.approx(photons[level].mean() + 1, rel=0.05)


def test_lines_are_noise_that_is_alike_for_five_pixels_along_x_alone() -> None:
    noisy, clean = (image.astype(float) for image in SAMPLES["denoising_structn2v_2d"].pair())
    noise = (noisy - clean) / 50
    whole = noise.var()
    assert whole == pytest.approx(((clean - 500) / 50).mean() + 1 + 2**2, rel=0.02)
    along = [np.mean(noise[:, :-k] * noise[:, k:]) for k in range(1, 7)]
    # Of the mean of five: 4/5, 3/5, ... of its variance of 4.
    np.testing.assert_allclose(along, [3.2, 2.4, 1.6, 0.8, 0, 0], atol=0.1)
    assert abs(np.mean(noise[:-1] * noise[1:])) < 0.1


@pytest.mark.parametrize("name", UNPAIRED)
def test_unpaired_images_and_targets_are_of_different_places(name: str, tmp_path: Path) -> None:
    folder = write_samples(name, tmp_path / "images")
    (axis, first), (across, middle) = SAMPLES[name].held_out, SAMPLES[name].unpaired or ("", 0)
    places = {"images": slice(None, middle), "targets": slice(middle, None)}
    for kind, place in places.items():
        expected = whole(name, kind).isel({axis: slice(None, first), across: place})
        np.testing.assert_array_equal(written(folder, "train", kind), expected)
        held_out = whole(name, kind).isel({axis: slice(first, None)})
        np.testing.assert_array_equal(written(folder, "val", kind), held_out)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_images_are_the_same_each_time(name: str) -> None:
    for one, other in zip(SAMPLES[name].pair(), SAMPLES[name].pair(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_straight_line_gets_fluorescence_from_simulated_transmitted_light() -> None:
    light, fluorescence = SAMPLES["labelfree_3d"].pair()
    assert abs(np.corrcoef(light.ravel(), fluorescence.ravel())[0, 1]) < 0.1
    assert light.std() > 300, "there is contrast beside the noise of 200"


def test_a_blurred_volume_has_lost_its_middle_frequencies() -> None:
    blurred, sharp = (
        np.abs(np.fft.rfftn((image - image.mean()) / image.std()))[3:6, 3:7, 3:7].mean()
        for image in SAMPLES["modality_transfer_3d"].pair()
    )
    assert blurred < 0.5 * sharp


def test_haematoxylin_alone_shows_no_brown() -> None:
    section, alone = (np.moveaxis(image, 0, -1) for image in SAMPLES["stain_transfer_2d"].pair())
    brown = [np.percentile(rgb2hed(image)[..., 2], 99) for image in (alone, section)]
    assert brown[0] < 0.05 * brown[1]


def test_glands_are_browner_than_what_is_around_them() -> None:
    section, glands = SAMPLES["glands_2d"].pair()
    assert np.unique(glands).tolist() == [0, 1]
    red_over_blue = section[0].astype(float) - section[2]
    assert red_over_blue[glands == 1].mean() > red_over_blue[glands == 0].mean() + 30


def test_about_a_third_of_the_nuclei_are_drawn_smaller_and_a_third_larger() -> None:
    mask, labels = SAMPLES["segmentation_2d_probabilistic"].pair()[1], SAMPLES["nuclei_2d"].pair()[1]
    numbers = np.unique(labels)[1:]
    around = np.where(labels == 0, ndimage.grey_dilation(labels, 3), 0)
    smaller = ndimage.mean(mask, labels, numbers) < 1
    larger = ndimage.mean(mask, around, numbers) > 0.9
    assert 0.2 < smaller.mean() < 0.45
    assert 0.2 < larger.mean() < 0.45
    assert not mask[ndimage.distance_transform_edt(labels == 0) >= 2].any()


def test_unknown_names_and_folders_that_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample images for 'nuclei'.*nuclei_2d"):
        write_samples("nuclei", tmp_path / "images")
    with pytest.raises(DataError, match="already exists"):
        write_samples("nuclei_2d", tmp_path)
