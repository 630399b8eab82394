"""OME-Zarr in a zip is read where it is, and a hostile or damaged zip is refused."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import missing_chunks, open_image, pixel_size_um, sources_of, stem_of, write_image
from im2im_zoo.runtime.execute.fingerprint import image_fingerprint
from im2im_zoo.runtime.execute.input_watch import InputWatch

VOXELS = np.random.default_rng(0).integers(0, 2**16, (2, 5, 40, 48), np.uint16)


def zipped(folder: Path, path: Path, below: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, below + file.relative_to(folder).as_posix())
    return path


@pytest.fixture(params=["0.4", "0.5"])
def zarr_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    image = xr.DataArray(
        VOXELS, dims=("channel", "z", "y", "x"), attrs={"pixel_size_um": {"z": 0.3, "y": 0.1, "x": 0.1}}
    )
    return write_image(image, tmp_path / "x.ome.zarr", ome_zarr_version=request.param)


@pytest.mark.parametrize("suffix", [".ozx", ".ome.zarr.zip", ".zarr.zip"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_like_its_folder(zarr_folder: Path, suffix: str, method: int, tmp_path: Path) -> None:
    path = zipped(zarr_folder, tmp_path / f"b{suffix}", method=method)
    opened, expected = open_image(path), open_image(zarr_folder)
    assert opened.dims == expected.dims
    assert pixel_size_um(opened) == pixel_size_um(expected)
    np.testing.assert_array_equal(opened.values, VOXELS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened))[1, 2:4, ::3].values, VOXELS[1, 2:4, ::3])
    assert sources_of(opened) == (str(path),)
    assert stem_of(path) == "b"


def test_a_folder_that_was_zipped_as_a_whole_is_found(zarr_folder: Path, tmp_path: Path) -> None:
    path = zipped(zarr_folder, tmp_path / "a.zarr.zip", "x.ome.zarr/")
    np.testing.assert_array_equal(open_image(path).values, VOXELS)
    np.testing.assert_array_equal(open_image(f"{path}:/0").values, VOXELS)


def test_a_level_of_a_zip_is_named_by_its_path(zarr_folder: Path, tmp_path: Path) -> None:
    path = zipped(zarr_folder, tmp_path / "a.ozx")
    assert pixel_size_um(open_image(f"{path}:/0")) == {"z": 0.3, "y": 0.1, "x": 0.1}
    with pytest.raises(ImageError, match="there is no zarr"):
        open_image(f"{path}:/7")
    with pytest.raises(ImageError, match="leads out"):
        open_image(f"{path}:/../x.ome.zarr")


def test_images_in_a_zip_are_listed(zarr_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        for file in sorted(p for p in zarr_folder.rglob("*") if p.is_file()):
            archive.write(file, "cells/" + file.relative_to(zarr_folder).as_posix())
    with pytest.raises(ImageError, match=r"a\.ozx:/cells"):
        open_image(path)
    if (zarr_folder / "zarr.json").exists():
        np.testing.assert_array_equal(open_image(f"{path}:/cells").values, VOXELS)


def test_chunks_that_a_zip_lacks_are_counted(zarr_folder: Path, tmp_path: Path) -> None:
    path, chunks = tmp_path / "a.ozx", []
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in zarr_folder.rglob("*") if p.is_file()):
            is_chunk = file.parent.name != "x.ome.zarr" and not file.name.startswith((".z", "zarr.json"))
            chunks += [file] * is_chunk
            if not is_chunk or len(chunks) != 1:
                archive.write(file, file.relative_to(zarr_folder).as_posix())
    [(_, found)] = missing_chunks(open_image(path))
    assert found.missing == 1


def test_a_zip_cut_short_and_a_damaged_chunk_are_named(zarr_folder: Path, tmp_path: Path) -> None:
    path = zipped(zarr_folder, tmp_path / "a.ozx", method=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    (tmp_path / "short.ozx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"short.ozx: the zip cannot be read.*copy or export it again"):
        open_image(tmp_path / "short.ozx")
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda e: e.file_size)
    at = largest.header_offset + largest.compress_size // 2
    content[at : at + 99] = bytes(99)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a.ozx.*(damaged|cannot read)"):
        open_image(path).load()


def test_metadata_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ozx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", b" " * (65 * 2**20))
    with pytest.raises(ImageError, match="too many for metadata"):
        open_image(tmp_path / "a.ozx")


def test_a_chunk_that_unpacks_to_far_more_than_its_bytes_is_refused(
    zarr_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in zarr_folder.rglob("*") if p.is_file()):
            is_chunk = not file.name.startswith((".z", "zarr.json"))
            content = b"\0" * (65 * 2**20) if is_chunk and file.stat().st_size > 1000 else file.read_bytes()
            archive.writestr(file.relative_to(zarr_folder).as_posix(), content)
    with pytest.raises(ImageError, match=r"unpacks \d+ bytes to"):
        open_image(path)[:1, :1].load()


def test_levels_outside_of_a_zip_are_not_read(tmp_path: Path) -> None:
    levels = '[{"path": "../b.zarr/0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}]'
    ome = f'{{"multiscales": [{{"axes": [{{"name": "y"}}, {{"name": "x"}}], "datasets": {levels}}}]}}'
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        archive.writestr(
            "zarr.json", f'{{"zarr_format": 3, "node_type": "group", "attributes": {{"ome": {ome}}}}}'
        )
    with pytest.raises(ImageError, match="outside of it"):
        open_image(tmp_path / "a.ozx")


def test_a_change_of_the_zip_is_noticed_and_its_parts_are_told_apart(
    zarr_folder: Path, tmp_path: Path
) -> None:
    path = zipped(zarr_folder, tmp_path / "a.ozx")
    whole, part = open_image(path), open_image(f"{path}:/0")
    assert image_fingerprint(whole) != image_fingerprint(part)
    watch, before = InputWatch.of([part]), image_fingerprint(part)
    assert watch.find_changed() is None
    zipped(zarr_folder, path, method=zipfile.ZIP_DEFLATED)
    assert watch.find_changed() == str(path)
    assert image_fingerprint(open_image(f"{path}:/0")) != before
