import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from preprocessed import preprocess

import im2im_zoo.data.cache.cached_image as module
from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs
from im2im_zoo.data.cache.preprocess import PreparedPairs, plan_preprocessing
from im2im_zoo.recipe import Recipe

Make = Callable[..., Recipe]
Write = Callable[..., Path]
OF_IMAGE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]
OF_DATASET = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["batch", "channel", "y", "x"]}}]
BINARIZE = [{"id": "binarize", "kwargs": {"threshold": 0.5}}]


def run(recipe: Recipe, folder: Path, **options: Any) -> PreparedPairs:
    return preprocess(find_pairs(recipe.data, recipe.seed), recipe, folder, **options)


def raw(path: Path, name: str, kind: str = "images") -> np.ndarray:
    return tifffile.imread(path / kind / f"{name}.tif").astype(np.float64)


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Write) -> Path:
    return write_pairs(tmp_path / "set", "abcde")


def test_statistics_are_those_of_each_whole_image(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    recipe = recipe_for(folder, preprocessing=OF_IMAGE, target_preprocessing=BINARIZE)
    prepared = run(recipe, tmp_path / "cache")
    assert len(prepared.train) == 4
    for one in (*prepared.train, *prepared.validation):
        image, values = raw(folder, one.name), np.load(one.input)
        assert values.dtype == np.float32
        assert values.shape == (1, *one.shape) == (1, 96, 112)
        np.testing.assert_allclose(values[0], (image - image.mean()) / (image.std() + 1e-6), atol=1e-5)
        np.testing.assert_array_equal(np.load(one.target)[0], raw(folder, one.name, "targets") > 0)


@pytest.mark.parametrize("operations", [OF_DATASET, [{"id": "zero_mean_unit_variance", "kwargs": {}}]])
def test_statistics_of_the_dataset_are_those_of_all_training_images(
    folder: Path, tmp_path: Path, recipe_for: Make, operations: list[Any]
) -> None:
    prepared = run(recipe_for(folder, preprocessing=operations), tmp_path / "cache")
    training = np.stack([raw(folder, one.name) for one in prepared.train])
    for one in (*prepared.train, *prepared.validation):
        expected = (raw(folder, one.name) - training.mean()) / (training.std() + 1e-6)
        np.testing.assert_allclose(np.load(one.input)[0], expected, atol=1e-5)


def test_statistics_of_the_dataset_and_of_the_image_can_follow_each_other(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    prepared = run(recipe_for(folder, preprocessing=[*OF_DATASET, *OF_IMAGE]), tmp_path / "cache")
    for one in (*prepared.train, *prepared.validation):
        image = raw(folder, one.name)
        np.testing.assert_allclose(np.load(one.input)[0], (image - image.mean()) / image.std(), atol=1e-4)


def test_a_target_can_be_scaled_by_its_input(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    scale = {
        "axes": ["channel", "y", "x"],
        "min_percentile": 0,
        "max_percentile": 100,
        "reference_tensor": "input",
    }
    operations = [{"id": "scale_range", "kwargs": scale}]
    [one] = run(recipe_for(folder, target_preprocessing=operations), tmp_path / "cache").validation
    image, target = raw(folder, one.name), raw(folder, one.name, "targets")
    expected = (target - image.min()) / (np.ptp(image) + 1e-6)
    np.testing.assert_allclose(np.load(one.target)[0], expected, rtol=1e-5, atol=1e-6)


def test_volumes_in_blocks_equal_volumes_at_once(
    tmp_path: Path,
    nuclei_3d: tuple[np.ndarray, np.ndarray],
    recipe_for: Make,
    write_ome_zarr: Write,
) -> None:
    for name in "ab":
        write_ome_zarr(tmp_path / f"{name}.zarr", np.stack(nuclei_3d), "czyx")
    softmax = {"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99}}
    recipe = recipe_for(
        tmp_path,
        axes="zyx",
        preprocessing=[softmax],
        pairing="channels",
        input_channels=[0, 1],
        target_channels=[1],
    )
    whole = [np.load(one.input) for one in run(recipe, tmp_path / "whole").train]
    parts = plan_preprocessing(
        find_pairs(recipe.data, recipe.seed), recipe, tmp_path / "blocks", block_bytes=2**16
    )
    parts.write(range(len(parts.names)))
    blocks = [np.load(one.input) for one in parts.prepared.train]
    assert whole[0].shape == (2, 31, 61, 57)
    np.testing.assert_array_equal(blocks, whole)


def test_a_second_time_nothing_is_computed(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    recipe = recipe_for(folder, preprocessing=OF_IMAGE)
    first = run(recipe, tmp_path / "cache")
    written = {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").iterdir()}
    assert run(recipe, tmp_path / "cache") == first
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").iterdir()} == written
    assert len([f for f in written if f.suffix == ".npy"]) == 10


def test_what_a_file_depends_on_changes_its_name(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    def files(**options: Any) -> dict[str, Path]:
        prepared = run(recipe_for(folder, **options), tmp_path / "cache")
        return {one.name: one.input for one in (*prepared.train, *prepared.validation)}

    before = files(preprocessing=OF_IMAGE)
    assert not set(before.values()) & set(files().values())
    of_dataset = files(preprocessing=OF_DATASET)
    array = tifffile.imread(folder / "images" / "a.tif")
    tifffile.imwrite(folder / "images" / "a.tif", array + 1, metadata={"axes": "YX"})
    after = files(preprocessing=OF_IMAGE)
    assert {name for name in before if before[name] != after[name]} == {"a"}
    assert "a" in {p.name for p in find_pairs(recipe_for(folder).data, 0).train}
    assert all(of_dataset[name] != path for name, path in files(preprocessing=OF_DATASET).items())


def test_an_interrupted_file_leaves_nothing(
    folder: Path, tmp_path: Path, recipe_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "convert_to_float32", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(recipe_for(folder), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_several_can_fill_the_same_folder_at_once(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    recipe = recipe_for(folder, preprocessing=OF_IMAGE)
    alone = run(recipe, tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run(recipe, tmp_path / "shared"), range(4)))
    assert len({str(one) for one in found}) == 1
    names = sorted(p.name for p in (tmp_path / "shared").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "alone").iterdir())
    np.testing.assert_array_equal(np.load(found[0].train[0].input), np.load(alone.train[0].input))


@pytest.mark.parametrize("operations", [[], OF_IMAGE])
def test_values_that_are_not_finite_are_refused_with_the_file(
    folder: Path, tmp_path: Path, recipe_for: Make, operations: list[Any]
) -> None:
    image = raw(folder, "c").astype(np.float32)
    image[5, 6] = np.nan
    tifffile.imwrite(folder / "images" / "c.tif", image, metadata={"axes": "YX"})
    with pytest.raises(DataError, match=r"images/c\.tif.*NaN"):
        run(recipe_for(folder, preprocessing=operations), tmp_path / "cache")


def test_labels_that_float32_would_merge_are_refused(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    labels = raw(folder, "c", "targets").astype(np.uint32)
    labels[0, 0] = 2**24 + 1
    tifffile.imwrite(folder / "targets" / "c.tif", labels, metadata={"axes": "YX"})
    with pytest.raises(DataError, match=r"targets/c\.tif.*relabel"):
        run(recipe_for(folder), tmp_path / "cache")
    run(recipe_for(folder, target_preprocessing=BINARIZE), tmp_path / "cache")


def test_an_operation_that_cannot_be_done_names_its_key(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    operations = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["z", "y"]}}]
    with pytest.raises(DataError, match=r"target\.preprocessing.*axis 'z'"):
        run(recipe_for(folder, target_preprocessing=operations), tmp_path / "cache")


def test_too_little_space_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, recipe_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"need 0\.0 GB in .*cache.*TMPDIR"):
        run(recipe_for(folder), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_counts_the_pairs(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    seen: list[tuple[int, int, str]] = []
    prepared = run(recipe_for(folder), tmp_path / "cache", progress=lambda *now: seen.append(now))
    names = [one.name for one in (*prepared.train, *prepared.validation)]
    assert seen == [(n, 5, name) for n, name in enumerate(names, 1)]
