"""Chunks that are large in memory are decoded once and one at a time, with the same values."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from im2im_zoo.images import large_chunks, open_image
from im2im_zoo.images.large_chunks import KeptChunk, decoding_bytes
from im2im_zoo.images.lazy import DECODING_KEY


@st.composite
def regions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[slice, ...]]:
    """A shape, sides of chunks, and a region with steps."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, 14)) for _ in shape)
    key = []
    for size in shape:
        start = draw(st.integers(0, size))
        key.append(slice(start, draw(st.integers(start, size)), draw(st.integers(1, 5))))
    return shape, chunks, tuple(key)


@given(regions())
def test_a_region_read_chunk_by_chunk_is_the_region(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[slice, ...]],
) -> None:
    shape, chunks, key = case
    voxels = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    kept = KeptChunk(shape, voxels.dtype, chunks)
    for region in (key, key[::1]):
        found = kept.read(region, lambda _, whole: voxels[whole])
        np.testing.assert_array_equal(found, voxels[region])


def zarr_of(compressor: Any, zarr_format: int) -> Callable[[Path, NDArray[Any]], Path]:
    def write(folder: Path, voxels: NDArray[Any]) -> Path:
        path = folder / "a.zarr"
        array = zarr.create_array(
            path,
            shape=voxels.shape,
            chunks=(5000, 4000),
            dtype=voxels.dtype,
            compressors=compressor,
            zarr_format=zarr_format,
        )
        array[:] = voxels
        return path

    return write


def tiff(folder: Path, voxels: NDArray[Any]) -> Path:
    tifffile.imwrite(folder / "a.tif", voxels, compression="zlib", rowsperstrip=5000)
    return folder / "a.tif"


WRITERS = {
    "blosc": zarr_of(zarr.codecs.BloscCodec(cname="lz4"), 3),
    "zstd": zarr_of(zarr.codecs.ZstdCodec(level=1), 3),
    "zarr 2": zarr_of("auto", 2),
    "uncompressed": zarr_of(None, 3),
    "tiff": tiff,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_large_chunk_is_decoded_once(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = (np.arange(6000 * 4100, dtype=np.uint32) % 977).astype(np.uint16).reshape(6000, 4100)
    path = WRITERS[writer](tmp_path, voxels)
    image = open_image(path, axes="yx") if writer != "tiff" else open_image(path)
    decoded: list[tuple[int, ...]] = []
    source = image.variable._data.array.source
    own = type(source)._decode

    def counted(self: Any, *arguments: Any) -> Any:
        decoded.append(arguments[1])
        return own(self, *arguments)

    monkeypatch.setattr(type(source), "_decode", counted)
    for rows in (slice(0, 300), slice(200, 700), slice(4000, 4900)):
        np.testing.assert_array_equal(image[rows, 100:900].values, voxels[rows, 100:900])
    assert decoded == [(0, 0)]
    np.testing.assert_array_equal(image[4900:5100, 3900:].values, voxels[4900:5100, 3900:])
    assert image.encoding[DECODING_KEY] == 2 * 5000 * (4100 if writer == "tiff" else 4000) * 2


def test_the_memory_that_decoding_takes_is_that_of_the_chunks_that_are_there() -> None:
    assert decoding_bytes((100, 100), (100, 100), 2) == 100 * 100 * 2
    assert decoding_bytes((300, 100), (100, 100), 2) == 3 * 100 * 100 * 2
    assert decoding_bytes((10000, 10000), (100, 100), 2) == 10 * 100 * 100 * 2
    large = large_chunks.LARGE_CHUNK_BYTES
    assert decoding_bytes((10 * large,), (large,), 1) == 2 * large
