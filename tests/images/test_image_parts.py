"""Other processes write their parts of an image beside the one that has it open."""

import itertools
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import create_image, open_image
from im2im_zoo.images.formats.ome_zarr.pyramid import halve
from im2im_zoo.images.writer import ImagePart

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif", ".npy")
SHAPE = (2, 512, 600)


def row_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(1, 60000, (2, 64, 600)).astype(np.uint16)


def write_rows(part: ImagePart, rows: tuple[int, ...], columns: int) -> None:
    for number, x in itertools.product(rows, range(0, 600, columns)):
        region = {"y": slice(number * 64, number * 64 + 64), "x": slice(x, x + columns)}
        part.write(region, row_of(number)[:, :, x : x + columns])


def shards_of(suffix: str) -> dict[str, Any]:
    return {"chunks": (2, 64, 100), "shards": (2, 64, 600)} if "zarr" in suffix else {}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("suffix", "method"), [(".ome.zarr", "spawn"), (".tif", "spawn"), *((s, "fork") for s in SUFFIXES)]
)
def test_parts_in_other_processes_and_the_writer_make_one_image(
    tmp_path: Path, suffix: str, method: str
) -> None:
    path = tmp_path / f"a{suffix}"
    made: list[int] = []
    with create_image(
        path,
        axes="zyx",
        shape=SHAPE,
        dtype="uint16",
        **shards_of(suffix),
        on_reduced=lambda level, _: made.append(level),
    ) as writer:
        part = writer.part()
        # A part that is open already, and comes to a process of its own.
        write_rows(part, (0,), 600)
        writer.mark({"y": slice(0, 64)})
        # Narrow columns are many small writes, which would meet if two processes shared the position in a file.
        columns = 600 if "zarr" in suffix else 30
        context = multiprocessing.get_context(method)
        others = [
            context.Process(target=write_rows, args=(part, rows, columns)) for rows in ((2, 3, 4), (5, 6, 7))
        ]
        for process in others:
            process.start()
        writer.write({"y": slice(64, 128)}, row_of(1))
        for process in others:
            process.join()
            assert process.exitcode == 0
        for number in range(2, 8):
            writer.mark({"y": slice(number * 64, number * 64 + 64)})
        assert ("zarr" in suffix) == bool(made)
    expected = np.concatenate([row_of(n) for n in range(8)], axis=1)
    np.testing.assert_array_equal(open_image(path, axes="zyx").values, expected)
    if "zarr" in suffix:
        np.testing.assert_array_equal(open_image(path / "1").values, halve(expected, (1, 2, 2), average=True))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_checks_what_the_writer_checks(tmp_path: Path, suffix: str) -> None:
    with create_image(tmp_path / f"a{suffix}", axes="xzy", shape=(600, 2, 512), dtype="uint16") as writer:
        part = pickle.loads(pickle.dumps(writer.part()))
        with pytest.raises(AxesError, match="names time"):
            part.write({"time": slice(0, 1)}, row_of(0))
        with pytest.raises(ImageError, match="shape"):
            part.write({"y": slice(0, 64)}, row_of(0))
        part.write({"y": slice(0, 64)}, row_of(0).transpose(2, 0, 1))
    opened = open_image(tmp_path / f"a{suffix}", axes="xzy" if suffix == ".npy" else "zyx")
    np.testing.assert_array_equal(opened.transpose("z", "y", "x").values[:, :64], row_of(0))
    assert not opened.isel(y=slice(64, None)).values.any()


def test_a_part_is_given_only_while_the_writer_is_open(tmp_path: Path) -> None:
    writer = create_image(tmp_path / "a.npy", axes="zyx", shape=SHAPE, dtype="uint16")
    with pytest.raises(ImageError, match="not open"):
        writer.part()
    with pytest.raises(ImageError, match="not open"):
        writer.mark({})
