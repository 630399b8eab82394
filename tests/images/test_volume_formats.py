"""NRRD, MRC and NIfTI, compared with what their own libraries read: x is the fastest axis."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import open_image, pixel_size_um

VOLUME = np.random.default_rng(0).integers(0, 2**16, (4, 20, 30), np.uint16)
MOVIE = np.random.default_rng(1).integers(-99, 99, (3, 4, 20, 30), np.int16)
SIZES = {"z": 0.3, "y": 0.2, "x": 0.1}


def write_nrrd(path: Path, voxels: Any = VOLUME, **header: Any) -> Path:
    nrrd.write(str(path), voxels, header, index_order="C")
    return path


def read_nrrd(path: Path) -> Any:
    return nrrd.read(str(path), index_order="C")[0]


def write_nifti(
    path: Path, voxels: Any, units: tuple[str, str] = ("micron", "sec"), step: float = 2.5
) -> Path:
    image = nibabel.Nifti1Image(voxels.T, np.diag([0.1, 0.2, 0.3, 1]))
    image.header.set_xyzt_units(*units)
    image.header.set_zooms((0.1, 0.2, 0.3, step, 1)[: voxels.ndim])
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "<i4", "float32", "float64"])
def test_an_nrrd_is_read_as_pynrrd_reads_it(encoding: str, dtype: str, tmp_path: Path) -> None:
    path = write_nrrd(
        tmp_path / "a.nrrd",
        VOLUME.astype(dtype),
        encoding=encoding,
        kinds=["domain"] * 3,
        spacings=[0.1, 0.2, 0.3],
        units=["um"] * 3,
    )
    opened = open_image(path)
    assert opened.dims == ("z", "y", "x")
    assert pixel_size_um(opened) == pytest.approx(SIZES)
    np.testing.assert_array_equal(opened.values, read_nrrd(path))
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(opened))[1:, 3, ::4].values, read_nrrd(path)[1:, 3, ::4]
    )


def test_an_nrrd_has_sizes_from_space_directions_and_channels_from_kinds(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (4, 20, 30, 3), np.uint8)
    nan = [float("nan")] * 3
    directions = np.array([nan, [0.06, 0.08, 0], [0, 0.2, 0], [0, 0, -0.3]])
    header = {
        "kinds": ["RGB-color", *["domain"] * 3],
        "space directions": directions,
        "space units": ["mm"] * 3,
    }
    opened = open_image(write_nrrd(tmp_path / "a.nrrd", rgb, **header, **{"space dimension": 3}))
    assert opened.dims == ("z", "y", "x", "channel")
    assert pixel_size_um(opened) == pytest.approx({"z": 300, "y": 200, "x": 100})
    np.testing.assert_array_equal(opened.values, rgb)


def test_an_nrrd_without_kinds_asks_for_its_axes(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd")
    with pytest.raises(AxesError, match="does not say which axes"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, axes="tyx").values, VOLUME)
    mixed = write_nrrd(tmp_path / "b.nrrd", kinds=["domain", "domain", "???"])
    with pytest.raises(AxesError, match=r"of which y and x are known.*zyx \(planes"):
        open_image(mixed)


def test_an_nrrd_is_no_larger_than_its_header_states(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", encoding="raw")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ImageError, match="cut short"):
        open_image(path, axes="zyx")
    head = content[: content.index(b"\n\n") + 2].replace(b"encoding: raw", b"encoding: gzip")
    path.write_bytes(head + gzip.compress(bytes(10**7)))
    assert open_image(path, axes="zyx").values.sum() == 0


def write_mrc(path: Path, voxels: Any, *, is_stack: bool = False) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.voxel_size = (1000, 2000, 3000)
        file.set_image_stack() if is_stack else None
        if not is_stack and voxels.ndim == 3:
            file.set_volume()
    return path


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
def test_an_mrc_is_read_as_mrcfile_reads_it(dtype: str, tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrc", VOLUME.astype(dtype))
    opened = open_image(path)
    assert opened.dims == ("z", "y", "x")
    assert pixel_size_um(opened) == pytest.approx(SIZES)
    np.testing.assert_array_equal(opened.values, mrcfile.read(path))
    assert open_image(write_mrc(tmp_path / "b.mrc", VOLUME[0])).dims == ("y", "x")


def test_a_stack_of_an_mrc_is_no_volume_until_it_is_declared(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrcs", VOLUME, is_stack=True)
    with pytest.raises(AxesError, match=r"stack of images by its header.*--axes zyx"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, axes="zyx").values, VOLUME)


def test_an_mrc_with_its_axes_in_another_order_says_so(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrc", VOLUME)
    with mrcfile.open(path, mode="r+") as file:
        file.header.mapc, file.header.mapr, file.header.maps = 3, 2, 1
    assert open_image(path).dims == ("x", "y", "z")


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_bytes_of_imod_are_unsigned_unless_a_flag_is_set(flags: int, dtype: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (4, 20, 30), np.uint8)
    path = write_mrc(tmp_path / "a.mrc", voxels.view(np.int8))
    content = bytearray(path.read_bytes())
    content[152:160] = struct.pack("<2i", 1146047817, flags)
    path.write_bytes(content)
    np.testing.assert_array_equal(open_image(path).values, voxels.view(dtype))


def test_an_mrc_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrc", VOLUME)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ImageError, match="again"):
        open_image(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("voxels", [VOLUME[0], VOLUME, MOVIE], ids=["plane", "volume", "movie"])
def test_a_nifti_is_read_as_nibabel_reads_it(voxels: Any, suffix: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / f"a{suffix}", voxels)
    opened = open_image(path)
    assert opened.dims == ("time", "z", "y", "x")[-voxels.ndim :]
    assert pixel_size_um(opened) == {a: SIZES[a] for a in opened.dims if a in SIZES}
    assert opened.attrs.get("time_step_s") == (2.5 if voxels.ndim == 4 else None)
    np.testing.assert_array_equal(opened.values, np.asarray(nibabel.load(path).dataobj).T)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(opened))[..., 1:3, ::4].values, voxels[..., 1:3, ::4]
    )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_with_a_slope_gives_scaled_values(suffix: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(MOVIE.T, np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / f"a{suffix}")
    expected = np.asarray(nibabel.load(tmp_path / f"a{suffix}").dataobj).T
    opened = open_image(tmp_path / f"a{suffix}")
    assert opened.dtype == np.float32
    np.testing.assert_allclose(opened.values, expected)
    np.testing.assert_allclose(opened[1, 2:, ::3].values, expected[1, 2:, ::3])


def test_a_nifti_in_units_that_it_does_not_state_has_no_pixel_size(tmp_path: Path) -> None:
    assert pixel_size_um(open_image(write_nifti(tmp_path / "a.nii", VOLUME, ("unknown", "unknown")))) == {}
    millimetres = open_image(write_nifti(tmp_path / "b.nii", VOLUME, ("mm", "sec")))
    assert pixel_size_um(millimetres) == pytest.approx({a: 1000 * size for a, size in SIZES.items()})


def test_values_of_a_voxel_are_channels(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(3, 1, 4, 20, 30)).astype(np.float32)
    opened = open_image(write_nifti(tmp_path / "a.nii.gz", voxels))
    assert opened.dims == ("channel", "z", "y", "x")
    np.testing.assert_array_equal(opened.values, voxels[:, 0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_that_claims_more_than_it_holds_is_refused(suffix: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", VOLUME)
    content = bytearray(path.read_bytes())
    content[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    claimed = tmp_path / f"b{suffix}"
    claimed.write_bytes(gzip.compress(bytes(content)) if suffix == ".nii.gz" else bytes(content))
    with pytest.raises(ImageError, match="cut short"):
        open_image(claimed)
