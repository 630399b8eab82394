"""Only the region that is asked for is read, and only so much memory is used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from zarr.storage import LocalStore

from im2im_zoo.images import create_image, open_image, write_image
from im2im_zoo.images.target import blocks
from im2im_zoo.processing.blocks import walk

SIDE = 200_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the chunks that zarr reads."""
    keys: list[str] = []
    get = LocalStore.get

    async def recorded(self: LocalStore, key: str, *args: object, **kwargs: object) -> object:
        if key.rsplit("/", 1)[-1] not in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"):
            keys.append(key)
        return await get(self, key, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "get", recorded)
    return keys


def test_a_small_region_of_a_huge_zarr_reads_one_chunk(tmp_path: Path, reads: list[str]) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(SIDE, SIDE),
        chunks=(1000, 1000),
        dtype="uint16",
        dimension_names=["y", "x"],
    )
    array[150_000:150_010, 120_000:120_010] = 7
    reads.clear()
    opened = open_image(tmp_path / "a.zarr")
    region = opened[150_000:150_500, 120_000:120_500].isel(y=slice(5, 15))
    assert reads == []
    assert region.sum() == 7 * 5 * 10
    assert reads == ["c/150/120"]


def test_opening_and_describing_a_file_reads_no_chunk(tmp_path: Path, reads: list[str]) -> None:
    image = xr.DataArray(np.ones((2, 50, 60)), dims=("channel", "y", "x"), coords={"channel": ["a", "b"]})
    path = write_image(image, tmp_path / "a.zarr")
    reads.clear()
    opened = open_image(path, channels=["b"])
    assert opened.transpose("x", "y", "channel").sizes == {"x": 60, "y": 50, "channel": 1}
    assert reads == []


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy"])
def test_a_region_of_a_file_larger_than_memory_is_written_and_read_at_once(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"huge{suffix}"
    block = np.arange(100, dtype=np.uint16).reshape(10, 10)
    region = {"y": slice(199_000, 199_010), "x": slice(70_000, 70_010)}
    with create_image(path, axes="yx", shape=(SIDE, SIDE), dtype="uint16") as writer:
        writer.write(region, block)
    assert path.stat().st_size > SIDE * SIDE * 2
    assert path.stat().st_blocks * 512 < 2**20
    np.testing.assert_array_equal(open_image(path).isel(region).values, block)


def test_a_tiled_tiff_decodes_only_the_tiles_of_the_region(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((512, 512), np.uint8), tile=(64, 64), compression="zlib")
    opened = open_image(path)
    opened[0, 0].load()
    sizes: list[int] = []
    read = tifffile.FileHandle.read

    def recorded(self: tifffile.FileHandle, size: int = -1, /) -> bytes:
        sizes.append(size)
        return read(self, size)

    monkeypatch.setattr(tifffile.FileHandle, "read", recorded)
    assert opened[70:120, 70:120].sum() == 2500
    assert len(sizes) == 1


def test_writing_a_large_image_stays_in_bounded_memory(tmp_path: Path) -> None:
    """500 MB go from a file into a pyramid, with far less memory."""
    code = """
import resource, sys
import numpy as np
from im2im_zoo.images import create_image, open_image, write_image
folder = sys.argv[1]
with create_image(folder + "/a.tif", axes="zyx", shape=(30, 4096, 4096), dtype="uint8") as writer:
    writer.write({"z": slice(3, 4), "y": slice(0, 1000)}, np.full((1, 1000, 4096), 9, np.uint8))
open_image(folder + "/a.tif")[0, :2, :2].load()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_image(open_image(folder + "/a.tif"), folder + "/a.zarr")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 200
    assert open_image(tmp_path / "a.zarr")[3, 999, 4095] == 9


@pytest.mark.parametrize("limit", [1, 100, 5000, 10**9])
def test_blocks_cover_an_image_once_and_keep_to_the_limit(limit: int) -> None:
    shape, chunks = (3, 17, 40), (1, 4, 16)
    seen = np.zeros(shape, int)
    for key in blocks(shape, chunks, 2, limit=limit):
        seen[key] += 1
        voxels = np.prod([k.stop - k.start for k in key])
        assert voxels * 2 <= max(limit, np.prod(chunks) * 2)
    assert (seen == 1).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_walking_a_wide_image_in_small_blocks_decodes_each_chunk_once(
    tmp_path: Path, reads: list[str], version: str
) -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 999, (2, 320, 5000)).astype(np.uint16)
    image = xr.DataArray(values, dims=("channel", "y", "x"), coords={"channel": ["a", "b"]})
    with create_image(
        tmp_path / "a.ome.zarr",
        axes=image.dims,
        shape=image.shape,
        dtype="uint16",
        chunks=(1, 100, 100),
        ome_zarr_version=version,
    ) as writer:
        writer.write({"channel": slice(0, 2), "y": slice(0, 320), "x": slice(0, 5000)}, values)
    opened = open_image(tmp_path / "a.ome.zarr", channels=[1])
    assert opened.encoding["preferred_chunks"] == {"channel": 1, "y": 100, "x": 100}
    reads.clear()
    total = sum(int(piece.sum()) for _, piece in walk(opened, block_bytes=2**19))
    assert total == values[1].sum(dtype=np.int64)
    assert len(reads) == len(set(reads)) == 4 * 50


def test_the_chunks_of_tiled_tiffs_are_known(tmp_path: Path) -> None:
    values = np.zeros((3, 200, 300), np.uint8)
    tifffile.imwrite(
        tmp_path / "tiled.tif",
        values,
        tile=(64, 128),
        compression="zlib",
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )
    tifffile.imwrite(
        tmp_path / "strips.tif",
        values,
        rowsperstrip=50,
        compression="zlib",
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="minisblack", metadata={"axes": "ZYX"})
    known = {
        p: open_image(tmp_path / f"{p}.tif").encoding.get("preferred_chunks")
        for p in ("tiled", "strips", "plain")
    }
    assert known["tiled"] == {"z": 1, "y": 64, "x": 128}
    assert known["strips"] == {"z": 1, "y": 50, "x": 300}
    assert known["plain"] is None
