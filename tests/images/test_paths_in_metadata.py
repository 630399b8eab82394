"""Files and folders that the metadata of an image name are read only if they lie within it."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.inner_path import is_within, leads_out
from im2im_zoo.images import open_image
from im2im_zoo.images.address import Address, place_within
from im2im_zoo.images.formats.ome_zarr.plate import plate_images

OUTSIDE = ["../secret.zarr", "/{folder}/secret.zarr", "a/../../secret.zarr", "link"]


def array(path: Path, values: Any) -> Path:
    zarr.save_array(path, np.full((4, 5), values, np.float32), zarr_format=2)
    return path


def group(path: Path, content: dict[str, Any]) -> Path:
    zarr.open_group(path, mode="a", zarr_format=2)
    (path / ".zattrs").write_text(json.dumps(content))
    return path


def multiscale(level: str) -> dict[str, Any]:
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": level}]}]}


@pytest.mark.parametrize("level", OUTSIDE)
def test_a_level_outside_of_the_image_is_refused(tmp_path: Path, level: str) -> None:
    array(tmp_path / "secret.zarr", 7)
    image = group(tmp_path / "a.zarr", multiscale(level.format(folder=tmp_path)))
    (image / "a").mkdir()
    (image / "link").symlink_to(tmp_path / "secret.zarr")
    with pytest.raises(ImageError, match=r"a\.zarr: its metadata name .*, which is outside of it"):
        open_image(image)


def test_a_level_within_the_image_is_read_also_through_a_link_to_the_whole_image(tmp_path: Path) -> None:
    image = group(tmp_path / "a.zarr", multiscale("s/0"))
    array(image / "s" / "0", 7)
    (tmp_path / "link.zarr").symlink_to(image)
    assert float(open_image(tmp_path / "link.zarr")[0, 0]) == 7


@pytest.mark.parametrize("part", ["well", "field"])
@pytest.mark.parametrize("name", ["../../other", "/tmp"])
def test_a_well_or_field_outside_of_the_plate_is_refused(tmp_path: Path, part: str, name: str) -> None:
    well = name if part == "well" else "A/1"
    plate = group(tmp_path / "p.zarr", {"plate": {"wells": [{"path": well}]}})
    (plate / "A" / "1").mkdir(parents=True)
    group(plate / "A" / "1", {"well": {"images": [{"path": name}]}})
    with pytest.raises(ImageError, match="which is outside of it"):
        plate_images(plate)
    with pytest.raises(ImageError, match=r"which is outside of it|is a plate of wells"):
        open_image(plate)


@pytest.mark.parametrize("text", ["../x", "https://127.0.0.1/x", "//host/x"])
def test_a_level_of_an_image_on_the_web_stays_there(text: str) -> None:
    with pytest.raises(ImageError, match="which is outside of it"):
        place_within(Address("https://host/a.zarr"), text)
    assert str(place_within(Address("https://host/a.zarr"), "0")) == "https://host/a.zarr/0"


def ome_tiff(path: Path, other: str) -> Path:
    """An OME-TIFF of two planes, of which the second is in another file."""
    data = np.zeros((1, 8, 8), np.uint8)
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0"><Pixels '
        'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="2" SizeC="1" SizeT="1">'
        f'<TiffData IFD="0" FirstZ="0"><UUID FileName="{path.name}">urn:uuid:1</UUID></TiffData>'
        f'<TiffData IFD="0" FirstZ="1"><UUID FileName="{other}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, data, description=text.encode(), metadata=None)
    return path


@pytest.mark.parametrize(
    "other", ["../second.tif", "{folder}/second.tif", "&#46;&#46;/second.tif", "\\\\host\\share\\second.tif"]
)
def test_a_plane_in_a_file_outside_of_the_folder_is_refused(tmp_path: Path, other: str) -> None:
    tifffile.imwrite(tmp_path / "second.tif", np.full((8, 8), 9, np.uint8))
    (tmp_path / "set").mkdir()
    path = ome_tiff(tmp_path / "set" / "first.ome.tif", other.format(folder=tmp_path))
    with pytest.raises(
        ImageError, match=r"first\.ome\.tif: its metadata name the file .* outside of its folder"
    ):
        open_image(path)


def test_a_file_outside_of_the_folder_in_an_index_beside_it_is_refused(tmp_path: Path) -> None:
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 256), (277, 1), (278, 4), (279, 16)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.append(struct.pack("<HHII", 51123, 2, 8, 240))
    directory = struct.pack("<H", len(entries)) + b"".join(entries)
    header = b"II*\0" + struct.pack("<I", 64) + struct.pack("<IIII", 483729, 2, 2355492, 2) + b"{}"
    (tmp_path / "a.tif").write_bytes(
        (header.ljust(64, b"\0") + directory + bytes(4)).ljust(240, b"\0") + b"{}".ljust(32, b"\0")
    )
    axes, name = b'{"z": 0}', b"../../second.tif"
    entry = struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
    (tmp_path / "NDTiff.index").write_bytes(entry + struct.pack("<IiiiiIii", 256, 4, 4, 0, 0, 64, 2, 0))
    with pytest.raises(ImageError, match=r"its metadata name the file '\.\./\.\./second\.tif'"):
        open_image(tmp_path / "a.tif")


def test_a_plane_in_a_file_beside_it_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "second.tif", np.full((8, 8), 9, np.uint8))
    image = open_image(ome_tiff(tmp_path / "first.ome.tif", "second.tif"))
    assert np.asarray(image).max() == 9


class Runs:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("key", ["filters", "compressor"])
@pytest.mark.parametrize("dtype", ["<f4", "|O"])
def test_a_zarr_whose_chunks_are_pickles_runs_none(tmp_path: Path, key: str, dtype: str) -> None:
    path = array(tmp_path / "a.zarr", 7)
    content = json.loads((path / ".zarray").read_text())
    content |= {
        "dtype": dtype,
        "compressor": None,
        key: [{"id": "pickle"}] if key == "filters" else {"id": "pickle"},
    }
    (path / ".zarray").write_text(json.dumps(content))
    (path / "0.0").write_bytes(pickle.dumps(Runs(tmp_path / "canary")))
    with pytest.raises(ImageError):
        np.asarray(open_image(path))
    assert not (tmp_path / "canary").exists()


def test_what_leads_out_of_a_folder(tmp_path: Path) -> None:
    assert all(map(leads_out, ("..", "../x", "/x", "C:x", "\\x", "a\\..\\x", "a/../x", "file:///x", "\0")))
    assert not any(map(leads_out, ("", ".", "x", "a/b", "..x", "a b/ü", "x..y")))
    (tmp_path / "link").symlink_to("/")
    assert is_within(tmp_path / "new", tmp_path)
    assert not is_within(tmp_path / "link" / "x", tmp_path)
