"""Headers of arrays and pictures that promise too much are refused without the memory that they promise being taken."""

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import ImageError, PackageError
from im2im_zoo.core.picture_file import read_picture_size


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def test_a_plain_array_is_read_in_c_order(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.uint16).reshape(3, 4))
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert found.flags.c_contiguous
    assert type(found) is np.ndarray


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4'}",
        "__import__('os').system('touch canary')",
        "(((((((((((((((((((((((((((((((((((((((((((",
        "",
    ],
)
def test_a_header_that_promises_what_is_not_there_is_refused(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(header))
    with pytest.raises(PackageError, match=r"a\.npy is not a plain \.npy array"):
        read_npy(tmp_path / "a.npy")


def test_objects_and_files_that_are_too_large_are_refused(tmp_path: Path) -> None:
    (tmp_path / "o.npy").write_bytes(
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1]))
    )
    with pytest.raises(PackageError, match="not a plain"):
        read_npy(tmp_path / "o.npy")
    np.save(tmp_path / "a.npy", np.zeros(100))
    with pytest.raises(PackageError, match="more than the limit of 500"):
        read_npy(tmp_path / "a.npy", limit=500)


def png(width: int, height: int) -> bytes:
    """A png of 100 bytes that says that it is as large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_sizes_are_read_of_headers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(300, 200))
    assert read_picture_size(tmp_path / "a.png") == (300, 200)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 20, 30), np.uint8))
    assert read_picture_size(tmp_path / "a.tif") == (30, 20)


@pytest.mark.parametrize("size", [(20_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_decodes_to_far_more_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(*size))
    with pytest.raises(ImageError, match="give a smaller picture"):
        read_picture_size(tmp_path / "a.png")


def test_many_frames_count_together(tmp_path: Path) -> None:
    frames = [Image.new("L", (100, 100), 10 * i) for i in range(20)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 100, 100), np.uint8), photometric="minisblack")
    for name in ("a.gif", "a.tif"):
        with pytest.raises(ImageError, match="more than 150000; give a smaller"):
            read_picture_size(tmp_path / name, limit=150_000)


def test_a_tiff_that_says_that_it_is_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(60_000)
        file.pages[0].tags["ImageLength"].overwrite(60_000)
    with pytest.raises(ImageError, match="give a smaller picture"):
        read_picture_size(path)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.jpg", "a.tif"])
def test_what_is_no_picture_is_an_error(name: str, tmp_path: Path) -> None:
    for content in (b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match="is not an image"):
            read_picture_size(tmp_path / name)
