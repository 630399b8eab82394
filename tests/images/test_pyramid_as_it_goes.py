"""The pyramid that is made while regions come is the one that the whole image would get, whatever their order."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image
from im2im_zoo.images.formats.ome_zarr.finished import FinishedBlocks
from im2im_zoo.images.formats.ome_zarr.pyramid import halve, levels

ONE = {"z": 1.0, "y": 1.0, "x": 1.0}


def whole_pyramid(voxels: NDArray[Any], sizes: dict[str, float], *, average: bool) -> list[NDArray[Any]]:
    """Each level of a z, y, x image from the whole of the one before."""
    found = [voxels]
    for level in levels(("z", "y", "x"), voxels.shape, sizes)[1:]:
        found.append(halve(found[-1], level.step, average=average))
    return found


def assert_levels(path: Path, expected: list[NDArray[Any]]) -> None:
    assert sum(p.name.isdecimal() for p in path.iterdir()) == len(expected)
    for number, voxels in enumerate(expected):
        np.testing.assert_array_equal(open_image(path / str(number)).values, voxels)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_regions_in_any_order_make_the_pyramid_of_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    shape = (
        data.draw(st.integers(1, 9), "z"),
        data.draw(st.integers(200, 600), "y"),
        data.draw(st.integers(257, 1100), "x"),
    )
    chunks = tuple(data.draw(st.integers(a, b), "chunk") for a, b in ((1, 4), (60, 200), (60, 300)))
    per_shard = data.draw(st.none() | st.tuples(*[st.integers(1, 3)] * 3), "chunks a shard")
    shards = None if per_shard is None else tuple(c * m for c, m in zip(chunks, per_shard, strict=True))
    version = "0.5" if shards else data.draw(st.sampled_from(["0.4", "0.5"]), "version")
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]), "dtype")
    labels = dtype != "float32" and data.draw(st.booleans(), "labels")
    sizes = data.draw(st.sampled_from([{}, ONE, {"z": 3.0, "y": 1.0, "x": 1.0}]), "sizes")
    voxels = (np.random.default_rng(4).random(shape) * 250).astype(dtype)
    path = tmp_path / "a.ome.zarr"
    writer = create_image(
        path,
        axes="zyx",
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        labels=labels,
        pixel_size_um=sizes,
        ome_zarr_version=version,
        overwrite=True,
    )
    aligned = data.draw(st.booleans(), "aligned")
    cuts = [range(0, n, c) for n, c in zip(shape, writer.chunks, strict=True)]
    if not aligned:
        cuts = [sorted({0, *data.draw(st.lists(st.integers(0, n - 1), max_size=2))}) for n in shape]
    spans = [[slice(a, b) for a, b in itertools.pairwise([*c, n])] for c, n in zip(cuts, shape, strict=True)]
    with writer:
        for key in data.draw(st.permutations(list(itertools.product(*spans))), "order"):
            writer.write(dict(zip("zyx", key, strict=True)), voxels[key])
    assert_levels(path, whole_pyramid(voxels, sizes, average=not labels))


def test_blocks_are_made_as_soon_as_they_can_be_and_once(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 60000, (1, 1024, 1024)).astype(np.uint16)
    made: list[tuple[int, int]] = []
    writer = create_image(
        tmp_path / "a.zarr",
        axes="zyx",
        shape=voxels.shape,
        dtype="uint16",
        chunks=(1, 256, 256),
        on_reduced=lambda level, block: made.append((level, block)),
    )
    with writer:
        for row, column in itertools.product(range(4), range(4)):
            y, x = slice(row * 256, row * 256 + 256), slice(column * 256, column * 256 + 256)
            writer.write({"y": y, "x": x}, voxels[:, y, x])
            if (row, column) == (1, 1):
                assert made == [(1, 0)]
        assert made == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
        assert not set(dict(zarr.open_group(writer._partial).attrs)) & {"ome", "multiscales"}
    assert len(made) == 5
    assert_levels(tmp_path / "a.zarr", whole_pyramid(voxels, {}, average=True))


def test_what_an_earlier_run_has_made_is_not_made_again(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 60000, (1, 1024, 1024)).astype(np.uint16)
    given: dict[str, Any] = {"axes": "zyx", "shape": voxels.shape, "dtype": "uint16", "chunks": (1, 256, 256)}
    made: list[tuple[int, int]] = []

    def first(rows: int) -> None:
        with create_image(
            tmp_path / "a.zarr", **given, work=tmp_path / "work", on_reduced=lambda *b: made.append(b)
        ) as writer:
            writer.write({"y": slice(0, rows)}, voxels[:, :rows])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first(1024)
    assert made == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("c/*/*/*")}
    # The block of level 2 is not among those that are told of: it alone is made again.
    again: list[tuple[int, int]] = []
    with create_image(
        tmp_path / "a.zarr",
        **given,
        work=tmp_path / "work",
        reduced=made[:4],
        on_reduced=lambda *b: again.append(b),
    ) as writer:
        assert again == [(2, 0)]
        writer.mark({})
    assert again == [(2, 0)]
    changed = [
        p.relative_to(tmp_path / "work").parts[0]
        for p, t in before.items()
        if (tmp_path / "a.zarr" / p.relative_to(tmp_path / "work")).stat().st_mtime_ns != t
    ]
    assert changed == ["2"]
    assert_levels(tmp_path / "a.zarr", whole_pyramid(voxels, {}, average=True))


@pytest.mark.parametrize("block", [(0, 0), (3, 0), (1, 4), (1, -1)])
def test_blocks_that_there_cannot_be_are_refused(tmp_path: Path, block: tuple[int, int]) -> None:
    writer = create_image(
        tmp_path / "a.zarr",
        axes="yx",
        shape=(1024, 1024),
        dtype="uint8",
        chunks=(256, 256),
        reduced=[block],
    )
    with pytest.raises(ImageError, match="no block"), writer:
        pass


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_each_block_becomes_ready_once_and_only_after_all_that_it_is_made_of(data: st.DataObject) -> None:
    axes = ("z", "y", "x")
    shape = data.draw(st.tuples(*[st.integers(1, 3000)] * 3), "shape")
    side = data.draw(st.tuples(*[st.integers(100, 1500)] * 3), "side")
    found = levels(axes, shape, data.draw(st.sampled_from([{}, ONE]), "sizes"))
    sides = [tuple(min(s, n) for s, n in zip(side, v.shape, strict=True)) for v in found]
    finished = FinishedBlocks([v.shape for v in found], sides, [v.step for v in found])
    done: set[tuple[int, tuple[int, ...]]] = set()

    def advance(number: int, ready: list[tuple[int, ...]]) -> None:
        for block in ready:
            assert (number, block) not in done
            for voxel in itertools.product(*[(k.start, k.stop - 1) for k in finished.bounds(number, block)]):
                below = tuple(
                    min(v * s + s - 1, n - 1) // each
                    for v, s, n, each in zip(
                        voxel,
                        found[number].step,
                        found[number - 1].shape,
                        sides[number - 1],
                        strict=True,
                    )
                )
                assert (number - 1, below) in done
            done.add((number, block))
            advance(number + 1, finished.mark(number, block))

    order = list(itertools.product(*[range(n) for n in finished.grids[0]]))
    data.draw(st.randoms(use_true_random=False)).shuffle(order)
    for block in order:
        done.add((0, block))
        advance(1, finished.mark_region(finished.bounds(0, block)))
    assert len(done) == sum(math.prod(grid) for grid in finished.grids)
    assert not any(finished.unfinished(number) for number in range(len(found)))
