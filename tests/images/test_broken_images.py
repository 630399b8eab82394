"""A file that cannot be read is an ImageError that names it and says what to do."""

import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import open_image, write_image

SUFFIXES = (".tif", ".ome.tif", ".npy", ".png", ".jpg")


def image_file(path: Path) -> Path:
    """A sound file of some size."""
    voxels = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    if path.suffix == ".jpg":
        from PIL import Image

        Image.fromarray(voxels).save(path)
        return path
    return write_image(xr.DataArray(voxels, dims=("y", "x")), path)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".ome.zarr", ".czi"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ImageError, match=rf"a{suffix}: there is no such file"):
        open_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(ImageError, match="is empty"):
        open_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"\x00" * 5000, b"<html>404</html>", b"II*\x00\x08\x00\x00\x00", b"\x93NUMPY"]
)
def test_a_file_of_something_else_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a{suffix}: .*(again|no image)"):
        open_image(tmp_path / f"a{suffix}").load()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str, part: float) -> None:
    path = image_file(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ImageError, match=rf"a{suffix}: .*again"):
        open_image(path).load()


@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_a_damaged_compressed_tiff_is_named_when_its_region_is_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    voxels = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    tifffile.imwrite(path, voxels, compression=compression, tile=(64, 64))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        start = tif.pages.first.dataoffsets[0]
    content[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    opened = open_image(path)
    np.testing.assert_array_equal(opened[128:, 128:].values, voxels[128:, 128:])
    with pytest.raises(ImageError, match=r"a.tif: cannot read the region \[0:10, 0:10\]"):
        opened[:10, :10].load()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("length", [5, 100, 59000])
def test_a_chunk_cut_short_is_named_when_its_region_is_read(
    tmp_path: Path, version: str, length: int
) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    path = write_image(
        xr.DataArray(voxels, dims=("y", "x")), tmp_path / "a.ome.zarr", ome_zarr_version=version
    )
    chunk = path / ("0/0/0" if version == "0.4" else "0/c/0/0")
    chunk.write_bytes(chunk.read_bytes()[:length])
    opened = open_image(path)
    with pytest.raises(ImageError, match=r"a.ome.zarr/0/.*cut short"):
        opened.load()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"zarr_format": 9, "node_type": "group"}'])
def test_damaged_zarr_metadata_is_named(tmp_path: Path, content: str) -> None:
    path = image_file(tmp_path / "a.ome.zarr")
    (path / "zarr.json").write_text(content)
    with pytest.raises(ImageError, match=r"a.ome.zarr: "):
        open_image(path)


def test_a_missing_level_is_named(tmp_path: Path) -> None:
    path = image_file(tmp_path / "a.ome.zarr")
    (path / "0").rename(path / "gone")
    with pytest.raises(ImageError, match="level '0', which is not there"):
        open_image(path)


def test_a_file_removed_while_open_is_named(tmp_path: Path) -> None:
    path = image_file(tmp_path / "a.tif")
    opened = open_image(path)
    path.unlink()
    with pytest.raises(ImageError, match=r"a.tif: .*removed"):
        opened.load()


class Exploding:
    """What a hostile pickle would do."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (sys.exit, ("a pickle was executed",))


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[Exploding()]], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy"):
        open_image(path)
    path.write_bytes(pickle.dumps(Exploding()))
    with pytest.raises(ImageError, match=r"a\.npy"):
        open_image(path)


def test_folders_and_parts_of_zarrs_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    path = image_file(tmp_path / "a.ome.zarr")
    with pytest.raises(ImageError, match=r"one file of the OME-Zarr .*a\.ome\.zarr; give that folder"):
        open_image(path / "zarr.json")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ImageError, match="is no zarr"):
        open_image(tmp_path / "b.zarr")


def test_addresses_that_anybody_on_the_way_could_change_are_refused() -> None:
    with pytest.raises(ImageError, match="only https addresses are read"):
        open_image("http://example.org/a.ome.zarr")


def test_values_that_are_no_intensities_are_refused(tmp_path: Path) -> None:
    for name, voxels in (("a.npy", np.ones((4, 5), complex)), ("b.npy", np.full((4, 5), "a"))):
        np.save(tmp_path / name, voxels)
        with pytest.raises(ImageError, match=rf"{name}: .*no image"):
            open_image(tmp_path / name)


def test_a_missing_file_of_an_ome_set_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((3, 20, 30), np.uint8), metadata={"axes": "ZYX"}, photometric="minisblack")
    text = path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="4"')
    path.write_bytes(text)
    with pytest.raises(ImageError, match=r"a.ome.tif: .*planes that are not there"):
        open_image(path)


def test_other_formats_ask_for_bioio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)  # as where it is not installed
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(ImageError, match=r'\.czi.*pip install "im2im_zoo\[bioio\]"'):
        open_image(tmp_path / "a.czi")


def test_tifffile_does_not_talk_beside_the_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.ome.tif"
    voxels = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    tifffile.imwrite(path, voxels, tile=(64, 64), compression="zlib", metadata={"axes": "YX"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="cut short"):
        open_image(path)
    assert caplog.records == []
    logging.getLogger("tifffile").error("of others")
    assert len(caplog.records) == 1


def test_python_objects_are_said_to_be_no_image(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[1, None]], object), allow_pickle=True)
    with pytest.raises(ImageError, match="Python objects"):
        open_image(tmp_path / "objects.npy")


@pytest.mark.parametrize(
    ("tag", "layout"), [("ImageWidth", {"tile": (16, 16)}), ("ImageLength", {"rowsperstrip": 16})]
)
def test_a_header_that_claims_more_than_the_file_holds_is_refused(
    tag: str, layout: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.zeros((64, 64), np.uint16), compression="zlib", **layout)
    with tifffile.TiffFile(file, mode="r+b") as tif:
        found = tif.pages.first.tags[tag]
        found.overwrite(2**31 if tag == "ImageWidth" else 2**15, dtype="I")
    with pytest.raises(ImageError, match=r"a\.tif: its header claims .* it is damaged"):
        open_image(file)
