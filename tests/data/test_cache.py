"""Where preprocessed images are while training: kept and limited, some at a time, or nowhere; the patches are the same."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Done, in_a_process

from im2im_zoo.core.errors import DataError, Im2ImError
from im2im_zoo.data import find_pairs, hash_pairs
from im2im_zoo.data.cache import cached_image
from im2im_zoo.data.cache.cache_folder import Lease, _is_own
from im2im_zoo.data.cache.content_hashes import remember_hashes
from im2im_zoo.data.cache.rotating_cache import ImageRotation
from im2im_zoo.data.cache.stored import RegionReader
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.pairing.files import hash_content
from im2im_zoo.data.patches.center_samplers import measure_weights
from im2im_zoo.data.patches.placement import sample_patch
from im2im_zoo.processing import fit
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, load_recipe

Make = Callable[..., Recipe]
OF_IMAGE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]
WHOLE = [
    {
        "id": "scale_range",
        "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": 1, "max_percentile": 99},
    }
]
NAMES = "abcdefgh"


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    return write_pairs(tmp_path / "set", NAMES)


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "im2im_zoo" / "images"


@pytest.fixture
def data_of(recipe_for: Make) -> Iterator[Callable[..., ImagePairs]]:
    made: list[ImagePairs] = []

    def build(path: Path, **options: Any) -> ImagePairs:
        options.setdefault("patches_per_image", 3)
        options.setdefault("batch_size", 4)
        made.append(ImagePairs(recipe_for(path, **options)))
        made[-1].setup("fit")
        return made[-1]

    yield build
    for data in made:
        data.teardown("fit")


def epoch(data: ImagePairs, number: int = 0) -> torch.Tensor:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return torch.cat([torch.stack([b["input"], b["target"]]) for b in loader], dim=1)


@pytest.mark.parametrize("operations", [OF_IMAGE, WHOLE], ids=["mean", "percentiles"])
def test_patches_read_from_the_images_are_those_of_the_cache_bit_by_bit(
    folder: Path, data_of: Callable[..., ImagePairs], user_cache: Path, operations: list[Any]
) -> None:
    options = {"preprocessing": operations, "object_patches": 0.0}
    cached, raw = data_of(folder, **options), data_of(folder, **options, cache="none")
    assert torch.equal(epoch(cached), epoch(raw))
    several = data_of(folder, **options, cache="none", workers=1)
    assert torch.equal(epoch(cached, 1), epoch(several, 1))
    for one, other in zip(cached.val_dataloader(), raw.val_dataloader(), strict=True):
        assert torch.equal(one["input"], other["input"])
    assert {file.suffix for file in user_cache.iterdir()} == {".json"}


def test_statistics_are_taken_once(
    folder: Path, data_of: Callable[..., ImagePairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = epoch(data_of(folder, preprocessing=OF_IMAGE, cache="none"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    for measuring in ("mean_and_std", "quantiles"):
        monkeypatch.setattr(f"im2im_zoo.processing.pipeline.{measuring}", refuse)
    assert torch.equal(epoch(data_of(folder, preprocessing=OF_IMAGE, cache="none")), first)
    with pytest.raises(AssertionError, match="measured again"):
        data_of(folder, preprocessing=WHOLE, cache="none")


def test_a_kept_cache_serves_the_next_run(
    folder: Path, data_of: Callable[..., ImagePairs], user_cache: Path
) -> None:
    first = data_of(folder, cache="kept")
    made = {file: file.stat().st_ino for file in user_cache.glob("*.npy")}
    first.teardown("fit")
    assert len(made) == 16
    data_of(folder, cache="kept")
    assert {file: file.stat().st_ino for file in user_cache.glob("*.npy")} == made


def test_what_was_not_used_longest_goes_first_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    files = [tmp_path / f"{name * 64}.npy" for name in "abcd"]
    for age, file in enumerate(files):
        file.write_bytes(bytes(100))
        os.utime(file, (1000 + age, 1000 + age))
    other = Lease(tmp_path, 10_000)
    other.use([files[0]])
    mine = Lease(tmp_path, 250)
    mine.use([files[3]])
    assert [file.name for file in files if file.exists()] == [f"{'a' * 64}.npy", f"{'d' * 64}.npy"]
    with pytest.raises(DataError, match=r"data\.cache_gb: the images in use need"):
        Lease(tmp_path, 150).use([files[3]])
    other.release()
    mine.use([files[3]])
    again = Lease(tmp_path, 150)
    again.use([])
    assert [file.name for file in files if file.exists()] == [f"{'d' * 64}.npy"]
    mine.release()
    again.release()
    assert list((tmp_path / "in_use").iterdir()) == []


def test_no_file_that_is_not_of_the_cache_is_removed(tmp_path: Path) -> None:
    names = ("mine.npy", f"{'g' * 64}.npy", f"{'a' * 63}.npy", "download.partial", f"{'a' * 64}.mine.partial")
    for name in names:
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000, 1000))
    lease = Lease(tmp_path, 50)
    lease.use([])
    assert {p.name for p in tmp_path.iterdir() if p.is_file() and p.name != ".turn"} == set(names)
    lease.release()


def test_a_temporary_folder_that_its_process_removes_meanwhile_is_no_error(tmp_path: Path) -> None:
    assert _is_own(tmp_path)
    assert not _is_own(tmp_path / "removed")


def test_a_process_that_died_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{'a' * 64}.npy").write_bytes(bytes(100))
    code = (
        "import os, sys; from pathlib import Path; from im2im_zoo.data.cache.cache_folder import Lease\n"
        "lease = Lease(Path(sys.argv[1]), 1000); lease.use([Path(sys.argv[1]) / ('a' * 64 + '.npy')]); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    assert len(list((tmp_path / "in_use").iterdir())) == 1
    lease = Lease(tmp_path, 50)
    lease.use([])
    assert not list(tmp_path.glob("*.npy"))
    lease.release()
    assert list((tmp_path / "in_use").iterdir()) == []


def test_over_a_pass_of_rounds_each_image_is_at_hand() -> None:
    rounds = ImageRotation(10, 0.3, 2, seed=5)
    assert rounds.size == 3
    for a_pass in range(3):
        members = [rounds.members(4 * a_pass + place) for place in range(4)]
        assert all(len(set(m)) == 3 for m in members)
        assert set().union(*members) == set(range(10))
    assert rounds.members(0) != rounds.members(4)
    assert [rounds.find_round(e) for e in range(5)] == [0, 0, 1, 1, 2]
    assert rounds.members(7) == ImageRotation(10, 0.3, 2, seed=5).members(7)
    assert ImageRotation(3, 1, 1, 0).members(9) == (0, 1, 2)
    assert ImageRotation(3, 0.01, 1, 0).size == 1


def test_a_share_of_the_images_is_on_disk_and_is_exchanged(
    folder: Path, data_of: Callable[..., ImagePairs], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    options = {"loaded": 0.34, "exchange_epochs": 2, "preprocessing": OF_IMAGE, "validation": 0.2}
    whole = data_of(folder, preprocessing=OF_IMAGE, validation=0.2)
    data = data_of(folder, **options, cache=str(cache))
    assert len(list(cache.glob("*.npy"))) == 4  # those that validate
    sampler = data.train_dataloader()
    assert len(sampler.dataset) == 2 * 3
    images = [np.load(pair.input) for pair in whole.train_dataloader().dataset._images]
    seen = []
    for number in range(6):
        patches = epoch(data, number)[0]
        owners = {
            next(i for i, image in enumerate(images) if _holds(image, patch.numpy())) for patch in patches
        }
        seen.append(owners)
    assert seen[0] == seen[1] != seen[2]
    assert set().union(*seen) == set(range(6))


def _holds(image: np.ndarray, patch: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(image, (1, 1, 1))
    places = np.argwhere(windows[0, :, :, 0, 0, 0] == patch[0, 0, 0])
    height, width = patch.shape[1:]
    return any(np.array_equal(image[:, y : y + height, x : x + width], patch) for y, x in places)


def test_a_temporary_share_is_removed_as_it_is_exchanged_and_resumed_exactly(
    folder: Path, data_of: Callable[..., ImagePairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = {"loaded": 0.17, "object_patches": 0.0}
    unbroken = data_of(folder, **options, workers=1)
    expected = [epoch(unbroken, number) for number in range(5)]
    [place] = tmp_path.glob("im2im_zoo_*")
    unbroken._rotating_cache.close()
    # Two that validate, one that trains, one that is next: two files each.
    assert len(list(place.glob("*.npy"))) <= 2 * (2 + 1 + 1)
    resumed = data_of(folder, **options)
    for number in (3, 4):
        assert torch.equal(epoch(resumed, number), expected[number])


def test_the_next_share_is_made_while_this_one_trains(
    folder: Path, data_of: Callable[..., ImagePairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[str] = []
    from im2im_zoo.data.cache import preprocess

    real = preprocess.write_cache_file

    def noting(*arguments: Any, **options: Any) -> None:
        makers.append(threading.current_thread().name)
        real(*arguments, **options)

    monkeypatch.setattr(preprocess, "write_cache_file", noting)
    data = data_of(folder, loaded=0.2)
    before = len(makers)
    assert set(makers) == {"MainThread"}
    for number in range(3):
        epoch(data, number)
    after = makers[before:]
    assert after.count("MainThread") == 2  # the first round's one pair
    assert any(name.startswith("next round") for name in after)


def test_what_goes_wrong_in_the_background_is_said(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    data = data_of(folder, loaded=0.17)
    epoch(data, 0)
    data._rotating_cache._next[1].result()
    for file in (folder / "images").iterdir():
        file.unlink()
    epoch(data, 1)
    with pytest.raises(Im2ImError, match=r"images/.\.tif"):
        epoch(data, 2)


def test_a_cache_that_cannot_be_made_is_named(folder: Path, recipe_for: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data\.cache: .*file/cache cannot be created"):
        ImagePairs(recipe_for(folder, cache=str(tmp_path / "file" / "cache"))).setup("fit")


def test_keys_of_data_that_do_not_go_together_are_refused(folder: Path, recipe_for: Make) -> None:
    for fields, message in (
        ({"loaded": 0.5, "cache": "none"}, "remove one of them"),
        ({"foreground_patches": 0.5, "object_patches": 0.5}, "cannot be combined"),
        ({"cost_patches": 0.5}, "needs cost maps"),
    ):
        with pytest.raises(Exception, match=message):
            recipe_for(folder, **fields)


@pytest.mark.parametrize("shape", [(40, 50), (300, 400), (7, 60, 90)], ids=str)
def test_patches_lie_by_weight(tmp_path: Path, shape: tuple[int, ...]) -> None:
    costs = np.zeros((1, *shape), np.float32)
    light, heavy = tuple(n // 4 for n in shape), tuple(3 * n // 4 for n in shape)
    costs[(0, *light)], costs[(0, *heavy)] = 1, 3
    np.save(tmp_path / "c.npy", costs)
    weights = measure_weights(tmp_path / "c.npy", shape, 1.0, foreground=False)
    random = np.random.default_rng(0)
    middles = np.array([weights.sample_center(random) for _ in range(400)])
    reach = np.array(weights.cell)
    near_heavy = (np.abs(middles - heavy) < reach).all(1)
    near_light = (np.abs(middles - light) < reach).all(1)
    assert (near_heavy | near_light).all()
    assert 0.68 < near_heavy.mean() < 0.82
    even = measure_weights(tmp_path / "c.npy", shape, 1.0, foreground=True)
    middles = np.array([even.sample_center(random) for _ in range(400)])
    assert 0.42 < (np.abs(middles - heavy) < reach).all(1).mean() < 0.58


def test_without_foreground_patches_lie_anywhere(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((1, 40, 50), np.float32))
    nothing = measure_weights(tmp_path / "t.npy", (40, 50), 1.0, foreground=True)
    corners = {sample_patch((40, 50), (8, 8), 0, 0, i, nothing).corner for i in range(50)}
    assert len(corners) > 40


def test_foreground_patches_have_more_foreground(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    shares = [
        float(
            (
                epoch(data_of(folder, patch_size=[8, 8], patches_per_image=40, foreground_patches=s))[1][
                    :, 0, 4, 4
                ]
                > 0
            )
            .float()
            .mean()
        )
        for s in (0.0, 1.0)
    ]
    assert shares[1] > 0.9 > shares[0]


def test_a_region_is_that_of_the_whole(folder: Path, recipe_for: Make) -> None:
    from im2im_zoo.data.cache.stored import LazyPreprocessedImage
    from im2im_zoo.data.pairing.image_pair import open_image_pair

    recipe = recipe_for(folder, preprocessing=OF_IMAGE)
    sample = open_image_pair(find_pairs(recipe.data, 0).train[0], recipe)
    pipeline = fit(recipe.input.preprocessing, sample.input)
    whole = pipeline(sample.input).to_numpy()
    region = RegionReader().read(LazyPreprocessedImage(sample.input, pipeline, "input"), (5, 7), (20, 30))
    np.testing.assert_array_equal(region, whole[:, 5:25, 7:37])


def test_processes_of_one_machine_share_a_temporary_folder(
    folder: Path, recipe_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = ImagePairs(recipe_for(folder))
    first.setup("fit")
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = ImagePairs(recipe_for(folder))
    second.setup("fit")
    [place] = tmp_path.glob("im2im_zoo_*")
    second.teardown("fit")
    assert len(list(place.glob("*.npy"))) == 16
    first.teardown("fit")
    assert not place.exists()


def test_contents_are_hashed_once_until_a_file_changes(
    folder: Path, recipe_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = find_pairs(recipe_for(folder).data, 0)
    with remember_hashes(tmp_path / "cache") as content:
        first = hash_pairs(pairs, content)
    assert first == hash_pairs(pairs)
    read: list[Path] = []

    def noting(path: Path) -> str:
        read.append(path)
        return hash_content(path)

    monkeypatch.setattr("im2im_zoo.data.cache.content_hashes.hash_content", noting)
    with remember_hashes(tmp_path / "cache") as content:
        assert hash_pairs(pairs, content) == first
    assert read == []
    changed = folder / "images" / "c.tif"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with remember_hashes(tmp_path / "cache") as content:
        assert hash_pairs(pairs, content) == hash_pairs(pairs) != first
    assert read == [changed]


def prepare(arguments: list[str]) -> None:
    """Prepare the images of a recipe; be killed in the middle of the given one, from 1; 0: not at all."""
    recipe, killed_at, environment = arguments[0], int(arguments[1]), json.loads(arguments[2])
    os.environ.update(environment)
    tempfile.tempdir = None  # that of the environment
    real, done = cached_image.RegionFile.write, itertools.count(1)

    def write(self: Any, key: Any, block: Any) -> None:
        real(self, key, block)
        if next(done) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    cached_image.RegionFile.write = write  # type: ignore[method-assign]
    data = ImagePairs(load_recipe(recipe))
    data.setup("fit")
    print(len(data.train_dataloader()))  # noqa: T201 what the test reads


def prepared(recipe: Recipe, tmp_path: Path, killed_at: int, **environment: str) -> Done:
    """Prepare the images of a recipe in a process of its own."""
    file = Path(tempfile.mkdtemp(dir=tmp_path)) / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    given = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"], **environment}
    return in_a_process(prepare, [str(file), str(killed_at), json.dumps(given)])


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_used_or_stays(
    folder: Path, recipe_for: Make, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    recipe = recipe_for(folder, cache=str(cache))
    assert prepared(recipe, tmp_path, killed_at=3).returncode == -signal.SIGKILL
    assert len(list(cache.glob("*.npy"))) == 2
    assert len(list(cache.glob("*.partial"))) == 1
    data = ImagePairs(recipe)
    data.setup("fit")
    assert len(list(cache.glob("*.npy"))) == 16
    assert not list(cache.glob("*.partial"))
    expected = ImagePairs(recipe_for(folder))
    expected.setup("fit")
    assert torch.equal(epoch(data), epoch(expected))
    for one in (data, expected):
        one.teardown("fit")


@pytest.mark.slow
def test_two_processes_that_write_at_once_end_with_one_file_an_image(
    folder: Path, recipe_for: Make, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    recipe = recipe_for(folder, cache=str(cache), cache_gb=16 * 43200 / 1e9)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: prepared(recipe, tmp_path, killed_at=0), range(2)))
    for done in both:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert len(list(cache.glob("*.npy"))) == 16
    assert not list(cache.glob("*.partial"))
    assert not list((cache / "in_use").iterdir())


@pytest.mark.slow
def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next_one(
    folder: Path, recipe_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    killed = prepared(recipe_for(folder), tmp_path, killed_at=3, TMPDIR=str(tmp_path / "t"))
    assert killed.returncode == -signal.SIGKILL
    [left] = (tmp_path / "t").glob("im2im_zoo_*")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    living = [ImagePairs(recipe_for(folder)) for _ in range(2)]
    for data in living:
        data.setup("fit")
    assert not left.exists()
    assert len(list((tmp_path / "t").glob("im2im_zoo_*"))) == 2
    for data in living:
        data.teardown("fit")


def test_images_that_are_more_than_a_cache_may_hold_are_refused_before_any_is_made(
    folder: Path, recipe_for: Make, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"data\.cache_gb: .* only 0\.0006 GB are allowed"):
        ImagePairs(recipe_for(folder, cache=str(cache), cache_gb=0.0006)).setup("fit")
    assert not list(cache.glob("*.npy"))


def test_a_full_disk_is_an_error_that_says_so_and_leaves_no_part(
    folder: Path, recipe_for: Make, tmp_path: Path
) -> None:
    import resource

    cache = tmp_path / "cache"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a file cannot become whole: EFBIG
    try:
        with pytest.raises(DataError, match=r"data\.cache: no space is left in .*cache"):
            ImagePairs(recipe_for(folder, cache=str(cache))).setup("fit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [*cache.glob("*.npy"), *cache.glob("*.partial")]


def test_a_file_of_the_cache_that_is_damaged_or_gone_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 8, 8), np.float32))
    os.truncate(tmp_path / "a.npy", 200)
    with pytest.raises(DataError, match=r"a\.npy in the cache is damaged .*: remove it"):
        RegionReader().read(tmp_path / "a.npy", (0, 0), (2, 2))
    with pytest.raises(DataError, match=r"b\.npy was removed from the cache while it was in use"):
        RegionReader().read(tmp_path / "b.npy", (0, 0), (2, 2))
