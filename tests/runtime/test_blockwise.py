"""Grouping in blocks: the labels are those of the whole image, whatever the blocks."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks_for_tests import Told, blobs, in_blocks, sample_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.core.errors import PackageError, PlanError
from im2im_zoo.images import create_image, open_image
from im2im_zoo.instances.blockwise import group_in_blocks
from im2im_zoo.instances.blockwise.numbers import Numbers, number_objects
from im2im_zoo.instances.blockwise.steps import StepRunner
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.instances.methods import components, embedseg, watershed
from im2im_zoo.runtime.execute.executors.process_pool import LocalProcesses

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 12), st.integers(1, 16), st.integers(1, 16)),
)
MANY = settings(max_examples=15, phases=(Phase.explicit, Phase.generate))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An image's shape, and sides of blocks: from one voxel to more than there are, odd ones, slabs."""
    shape = draw(SHAPES)
    # No more than some dozens of blocks, so that it takes no time.
    least = [max(1, n // (5 if len(shape) == 2 else 3)) for n in shape]
    return shape, tuple(draw(st.integers(low, n + 2)) for low, n in zip(least, shape, strict=True))


def embedding(
    random: np.random.Generator, labels: NDArray[np.int32], noise: float, sigma: float
) -> NDArray[np.float32]:
    """Maps of a network that knows the objects more or less: offsets to their means, sigmas, seediness."""
    grid = np.indices(labels.shape).astype(np.float32)
    offsets, seediness = np.zeros_like(grid), np.zeros(labels.shape, np.float32)
    inside = labels > 0
    for number in np.unique(labels[inside]):
        ours = labels == number
        offsets[:, ours] = grid[:, ours].mean(axis=1, keepdims=True) - grid[:, ours]
    offsets += random.normal(0, noise, offsets.shape)
    # Few different values, so that many voxels are equally sure.
    seediness[inside] = np.round(0.55 + 0.44 * random.random(int(inside.sum())), 2)
    sigmas = random.uniform(0.5, 1.5, grid.shape) * sigma
    return np.concatenate([offsets, sigmas, seediness[None]]).astype(np.float32)


# Connected components


@MANY
@given(SEEDS, cuts(), st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]), st.integers(0, 6))
def test_components_are_those_of_the_whole_image_with_any_blocks(
    seed: int, cut: tuple[Any, Any], part: float, min_size: int
) -> None:
    shape, block = cut
    maps = np.random.default_rng(seed).random((2, *shape)).astype(np.float32)
    kwargs = {"channel": -1, "threshold": 1 - part, "min_size": min_size}
    expected = components.group(maps, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), components, kwargs))
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (expected.max(), [])


@MANY
@given(SEEDS, cuts())
def test_objects_that_touch_and_nest_are_the_components_that_scipy_finds(
    seed: int, cut: tuple[Any, Any]
) -> None:
    shape, block = cut
    maps = (blobs(np.random.default_rng(seed), shape, 6) > 0)[None].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, _ = in_blocks(sample_of(maps, block, Path(folder), components))
    expected, count = ndimage.label(maps[0])
    np.testing.assert_array_equal(labels, expected)
    assert objects == count


def test_a_spiral_through_all_blocks_is_one_object(tmp_path: Path) -> None:
    mask = np.zeros((1, 33, 33), np.float32)
    mask[0, ::2] = 1
    mask[0, 1::4, -1] = mask[0, 3::4, 0] = 1
    labels, objects, _ = in_blocks(sample_of(mask, (5, 4), tmp_path, components))
    assert objects == 1
    np.testing.assert_array_equal(labels, mask[0])


@settings(max_examples=30, phases=(Phase.explicit, Phase.generate))
@given(
    SEEDS,
    cuts(),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0.1, 0.4, 0.7, 1.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.booleans(),
)
def test_filled_and_split_components_are_those_of_the_whole_image_with_any_blocks(
    seed: int,
    cut: tuple[Any, Any],
    smooth: int,
    part: float,
    fill: bool,
    split: bool,
    neck: float,
    long: bool,
) -> None:
    shape, block = cut
    random = np.random.default_rng(seed)
    maps = random.random((1, *shape)).astype(np.float32)
    if smooth:
        maps = ndimage.gaussian_filter(maps, (0, *(smooth,) * len(shape)))
    kwargs = {
        "threshold": float(np.quantile(maps, 1 - part)),
        "min_size": int(random.integers(1, 7)),
        "fill_holes": fill,
        "split_touching": split,
        "neck": neck,
    }
    if long:
        kwargs["spacing"] = (2.3, *(1.0,) * (len(shape) - 1))
    expected = components.group(maps, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), components, kwargs))
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (expected.max(), [])


def test_objects_larger_than_blocks_are_filled_and_split_as_the_whole(tmp_path: Path) -> None:
    y, x = np.indices((140, 220))
    far = [np.hypot(y - 70, x - centre) for centre in (60, 150)]
    mask = (np.minimum(*far) < 55) & (np.minimum(*far) > 9)
    maps, kwargs = mask[None].astype(np.float32), {"fill_holes": True, "split_touching": True}
    expected = components.group(maps, **kwargs)
    assert expected.max() == 2
    labels, _, _ = in_blocks(sample_of(maps, (20, 30), tmp_path, components, kwargs))
    np.testing.assert_array_equal(labels, expected)
    with pytest.raises(PlanError, match="objects of more than 64 voxels from border to centre"):
        in_blocks(sample_of(maps, (20, 30), tmp_path / "little", components, kwargs, room=2_000_000))


@pytest.mark.parametrize("stop_after", [0, 7, 16, 25, 33, 40])
def test_split_components_are_resumed_at_the_next_block(tmp_path: Path, stop_after: int) -> None:
    maps = ndimage.gaussian_filter(np.random.default_rng(3).random((1, 30, 40)), (0, 2, 2)).astype(np.float32)
    kwargs = {"threshold": 0.48, "fill_holes": True, "split_touching": True}
    sample = sample_of(maps, (15, 14), tmp_path, components, kwargs)
    told = Told(np.zeros(sample.grid.shape, "uint32"), stop_after=stop_after)
    with contextlib.suppress(KeyboardInterrupt):
        in_blocks(sample, told=told)
    again = Told(told.labels)
    labels, _, _ = in_blocks(sample, done=told.done, told=again)
    np.testing.assert_array_equal(labels, components.group(maps, **kwargs))
    assert not told.done & again.done


# EmbedSeg


@MANY
@given(
    SEEDS,
    cuts(),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.sampled_from([0.3, 1.5, 5.0, 40.0]),
    st.integers(0, 4),
)
def test_the_greedy_choice_is_that_of_the_whole_image_with_any_blocks(
    seed: int, cut: tuple[Any, Any], noise: float, sigma: float, min_size: int
) -> None:
    shape, block = cut
    random = np.random.default_rng(seed)
    maps = embedding(random, blobs(random, shape, 6), noise, sigma)
    kwargs = {"seed_threshold": 0.6, "min_size": min_size}
    expected = embedseg.group(maps, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), embedseg, kwargs))
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (expected.max(), [])


@settings(MANY, max_examples=6)
@given(SEEDS, cuts(), st.sampled_from([0.01, 0.1]))
def test_it_is_so_of_maps_that_mean_nothing_and_of_a_few_voxels_that_reach_everywhere(
    seed: int, cut: tuple[Any, Any], part: float
) -> None:
    shape, block = cut
    random = np.random.default_rng(seed)
    axes = len(shape)
    sigmas = random.uniform(0.3, 1.5, (axes, *shape))
    sigmas[:, random.random(shape) < part] *= 30
    maps = np.concatenate([random.normal(0, 5, (axes, *shape)), sigmas, random.random((1, *shape))])
    maps = maps.astype(np.float32)
    strange = random.random(shape) < 0.02
    maps[0, strange] = random.choice([np.nan, np.inf, 1e30, -1e5])
    expected = embedseg.group(maps, seed_threshold=0.55)
    with tempfile.TemporaryDirectory() as folder:
        kwargs = {"seed_threshold": 0.55}
        labels, *_ = in_blocks(sample_of(maps, block, Path(folder), embedseg, kwargs))
    np.testing.assert_array_equal(labels, expected)


def test_a_chain_across_all_blocks_in_which_each_candidate_takes_the_next_is_decided(tmp_path: Path) -> None:
    length = 96
    maps = np.zeros((5, 1, length), np.float32)
    maps[2:4] = 1.5  # each takes its neighbour
    maps[4, 0] = np.linspace(0.91, 0.99, length)
    expected = embedseg.group(maps)
    assert expected.max() == length / 2
    sample = sample_of(maps, (1, 8), tmp_path, embedseg)
    told = Told(np.zeros((1, length), np.uint32))
    labels, *_ = in_blocks(sample, told=told)
    np.testing.assert_array_equal(labels, expected)
    assert len({step for step, _ in told.done if step.startswith("round")}) > 3, "the chain is no chain"


# Seeded watershed


@MANY
@given(SEEDS, cuts(), st.sampled_from([5, 1000]), st.sampled_from([None, 1]), st.integers(0, 4))
def test_the_watershed_is_that_of_the_whole_image_with_any_blocks(
    seed: int, cut: tuple[Any, Any], levels: int, boundary: int | None, min_size: int
) -> None:
    shape, block = cut
    random = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(random.random((2, *shape)), (0, *[1.0] * len(shape)))
    maps = (np.round(levels * (maps - 0.3) / 0.4) / levels).astype(np.float32)
    kwargs = {"seed_threshold": 0.6, "foreground_threshold": 0.4, "boundary": boundary, "min_size": min_size}
    expected = watershed.group(maps, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), watershed, kwargs))
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (expected.max(), [])


@MANY
@given(SEEDS, cuts(), st.sampled_from([6, 1000]), st.integers(0, 4))
def test_the_watershed_of_affinities_is_that_of_the_whole_image_with_any_blocks(
    seed: int, cut: tuple[Any, Any], levels: int, min_size: int
) -> None:
    shape, block = cut
    random = np.random.default_rng(seed)
    maps = (np.round(levels * random.random((1 + len(shape), *shape)) ** 0.3) / levels).astype(np.float32)
    kwargs = {"affinities": 1, "seed_threshold": 0.55, "foreground_threshold": 0.4, "min_size": min_size}
    expected = watershed.group(maps, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), watershed, kwargs))
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (expected.max(), [])


# Any other method

LABEL = """
from scipy import ndimage
import numpy as np

def group(maps):
    # Objects in an order of its own, with gaps.
    labels, count = ndimage.label(maps[0] > 0.5)
    return np.where(labels > 0, 3 * (count - labels + 1), 0)
"""
STRIPES = """
import numpy as np

def group(maps):
    # What an object is depends on where the view begins.
    return np.broadcast_to(1 + np.arange(maps.shape[-1]) // 7, maps.shape[1:])
"""


@settings(MANY, max_examples=8)
@given(SEEDS, cuts())
def test_a_method_of_anyones_gives_the_objects_of_the_whole_image_in_raster_order(
    seed: int, cut: tuple[Any, Any]
) -> None:
    shape, block = cut
    maps = (blobs(np.random.default_rng(seed), shape, 6) > 0)[None].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        labels, objects, warnings = in_blocks(sample_of(maps, block, Path(folder), LABEL))
    expected, count = ndimage.label(maps[0])
    np.testing.assert_array_equal(labels, expected)
    assert (objects, warnings) == (count, [])


def test_an_object_larger_than_the_overlap_makes_the_overlap_grow(tmp_path: Path) -> None:
    maps = np.zeros((1, 40, 200), np.float32)
    maps[0, 10:14, 20:110] = maps[0, 30:33, 150:155] = 1
    sample = sample_of(maps, (16, 16), tmp_path, LABEL)
    labels, objects, warnings = in_blocks(sample)
    np.testing.assert_array_equal(labels, ndimage.label(maps[0])[0])
    assert (objects, warnings) == (2, [])
    regions = sample.load("view_regions", 0)
    widths = regions[:, 1, 1] - regions[:, 1, 0]
    assert widths.max() > 180
    assert widths.min() < 30, "blocks without large objects are read with little around them"


def test_an_object_for_which_the_memory_leaves_no_overlap_is_warned_of(tmp_path: Path) -> None:
    maps = np.zeros((1, 40, 200), np.float32)
    maps[0, 10:14, 20:110] = 1
    sample = sample_of(maps, (16, 16), tmp_path, LABEL, room=100 * 40 * 60)
    *_, warnings = in_blocks(sample)
    assert "they may be cut at block borders: use more --memory" in warnings[0]


def test_what_two_blocks_see_differently_is_warned_of(tmp_path: Path) -> None:
    sample = sample_of(np.zeros((1, 10, 100), np.float32), (10, 16), tmp_path, STRIPES)
    labels, objects, warnings = in_blocks(sample)
    assert any("voxels differ between two blocks" in w for w in warnings)
    assert objects == len(np.unique(labels[labels > 0]))


# All methods


@pytest.mark.parametrize("shape", [(20, 30), (6, 10, 12)])
@pytest.mark.parametrize("method", [components, embedseg, watershed, LABEL])
def test_nothing_gives_no_object(tmp_path: Path, method: Any, shape: tuple[int, ...]) -> None:
    maps = np.zeros((2 * len(shape) + 1, *shape), np.float32)
    labels, objects, warnings = in_blocks(sample_of(maps, tuple(n // 3 for n in shape), tmp_path, method))
    assert (objects, warnings) == (0, [])
    assert not labels.any()


@pytest.mark.parametrize(("shape", "block"), [((30, 40), (9, 11)), ((9, 14, 16), (4, 5, 7))])
@pytest.mark.parametrize("method", [components, embedseg, watershed, LABEL])
def test_stopped_anywhere_it_goes_on_and_gives_the_same(
    tmp_path: Path, method: Any, shape: tuple[int, ...], block: tuple[int, ...]
) -> None:
    random = np.random.default_rng(3)
    maps = embedding(random, blobs(random, shape, 8), 0.5, 2.0)
    kwargs: dict[str, Any] = {"seed_threshold": 0.6} if method is embedseg else {}
    expected, count, _ = in_blocks(sample_of(maps, block, tmp_path / "unbroken", method, kwargs))
    assert count > 1
    sample = sample_of(maps, block, tmp_path / "broken", method, kwargs)
    told = Told(np.zeros(sample.grid.shape, np.uint32), stop_after=5)
    for _ in range(100):
        try:
            # What was told of last may be lost.
            labels, objects, _ = in_blocks(
                sample, done=frozenset(sorted(told.done)[: len(told.done) - 2]), told=told
            )
            break
        except KeyboardInterrupt:
            told.stop_after = len(told.done) + 7
    np.testing.assert_array_equal(labels, expected)
    assert objects == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape", "block"), [(embedseg, (18, 24, 30), (8, 9, 10)), (LABEL, (60, 80), (16, 16))]
)
def test_four_workers_give_what_one_gives(
    tmp_path: Path, method: Any, shape: tuple[int, ...], block: tuple[int, ...]
) -> None:
    random = np.random.default_rng(3)
    maps = embedding(random, blobs(random, shape, 20), 0.5, 2.0)
    kwargs: dict[str, Any] = {"seed_threshold": 0.6} if method is embedseg else {}
    expected, count, _ = in_blocks(sample_of(maps, block, tmp_path / "one", method, kwargs))
    sample = sample_of(maps, block, tmp_path / "four", method, kwargs)
    path, axes = tmp_path / "labels.ome.zarr", sample.space
    with create_image(path, axes=axes, shape=shape, dtype="uint32", chunks=block, labels=True) as writer:
        target = LabelImage(writer.part(), axes, shape, "uint32", axes, {}, "a model")
        told: list[tuple[str, int]] = []
        walker = StepRunner(LocalProcesses(4), record=lambda step, block: told.append((step, block)))
        objects, _ = group_in_blocks(sample, target, walker)
    np.testing.assert_array_equal(open_image(path), expected)
    assert objects == count > 1
    assert len(set(told)) == len(told)


def test_what_our_methods_do_not_take_is_refused_in_a_sentence(tmp_path: Path) -> None:
    maps = np.zeros((2, 20, 20), np.float32)
    with pytest.raises(PackageError, match="5 in 2D"):
        in_blocks(sample_of(maps, (9, 9), tmp_path / "a", embedseg))
    with pytest.raises(PackageError, match="failed for maps"):
        in_blocks(sample_of(maps, (9, 9), tmp_path / "b", components, {"channel": 2}))


def test_more_objects_than_the_type_has_numbers_are_refused(tmp_path: Path) -> None:
    maps = np.zeros((1, 40, 40), np.float32)
    maps[0, ::2, ::2] = 1
    with pytest.raises(PlanError, match="400 objects, more than uint8"):
        in_blocks(sample_of(maps, (9, 9), tmp_path / "a", components), "uint8")
    labels, objects, _ = in_blocks(sample_of(maps, (9, 9), tmp_path / "b", components), "uint64")
    assert (labels.dtype, labels.max(), objects) == (np.uint64, 400, 400)


def test_seventy_thousand_objects_have_seventy_thousand_numbers(tmp_path: Path) -> None:
    maps = np.zeros((1, 600, 500), np.float32)
    maps[0, ::2, ::2] = 1
    labels, objects, _ = in_blocks(sample_of(maps, (250, 256), tmp_path, components))
    assert objects == 75_000
    np.testing.assert_array_equal(labels, ndimage.label(maps[0])[0])


def test_numbers_beyond_two_to_the_31st_are_those_of_the_order_of_ids(tmp_path: Path) -> None:
    """With the tables of a part of an image that has more objects than can be made here."""
    sample = sample_of(np.zeros((1, 64, 64), np.float32), (16, 16), tmp_path, components)
    ids = np.array([300, 310, 511], np.int64)
    sample.save("numbers", 1, ids)
    before = np.array([0, 2**33, 2**33 + 3, *[2**33 + 3] * 14])
    numbers = Numbers(sample, 256, before)
    found = numbers(np.array([0, 300, 305, 310, 511, 512, 4000], np.int64))
    assert found.tolist() == [0, 2**33 + 1, 0, 2**33 + 2, 2**33 + 3, 0, 0]
    assert numbers.objects == 2**33 + 3
    assert np.concatenate([[0], found]).astype(np.uint64).max() == 2**33 + 3


def test_counts_of_an_object_are_added_over_blocks_and_may_be_large(tmp_path: Path) -> None:
    sample = sample_of(np.zeros((1, 64, 64), np.float32), (16, 16), tmp_path, components)
    sample.save("rows", 0, np.array([[3, 700], [2**40, 1]]))
    sample.save("rows", 1, np.array([[3, 9], [5, 1]]))
    sample.save("rows", 2, np.zeros((2, 0), np.int64))
    numbers = number_objects(sample, "rows", lambda rows: rows[1] > 2**40)
    assert numbers(np.array([3, 9, 700])).tolist() == [1, 0, 0]
