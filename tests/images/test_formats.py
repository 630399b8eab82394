"""Every image file format does what its class states."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.images import create_image, format_of, image_formats, open_image, write_image
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.registry import image_suffixes, is_folder_path, suffix_of

WRITTEN = [(f, suffix) for f in image_formats() for suffix in f.writes]
BY_REGION = [suffix for f, suffix in WRITTEN if f.by_region]


def movie(dims: tuple[str, ...]) -> xr.DataArray:
    sizes = {"time": 2, "channel": 3, "z": 4, "y": 20, "x": 30}
    voxels = np.random.default_rng(0).integers(0, 2**16, [sizes[d] for d in dims], np.uint16)
    image = xr.DataArray(voxels, dims=dims)
    image.attrs = {
        "pixel_size_um": {a: s for a, s in (("z", 0.5), ("y", 0.25), ("x", 0.125)) if a in dims},
        "translation_um": {a: s for a, s in (("z", 1.0), ("y", 2.0)) if a in dims},
        "time_step_s": 30.0,
        ATTRIBUTES_KEY: {"model": "nuclei"},
    }
    return image.assign_coords(channel=["dna", "actin", "er"]) if "channel" in dims else image


@pytest.mark.parametrize(("image_format", "suffix"), WRITTEN, ids=[s for _, s in WRITTEN])
def test_a_written_file_keeps_the_voxels_and_what_the_format_states(image_format, suffix, tmp_path):
    dims = ("time", "channel", "z", "y", "x") if len(image_format.keeps) > 2 else ("y", "x")
    image = movie(dims)
    opened = open_image(write_image(image, tmp_path / f"a{suffix}")).transpose(*dims)
    np.testing.assert_array_equal(opened.values, image.values)
    kept = {
        "pixel_size_um": opened.attrs["pixel_size_um"] == pytest.approx(image.attrs["pixel_size_um"]),
        "translation_um": opened.attrs.get("translation_um") == image.attrs["translation_um"],
        "time_step_s": opened.attrs.get("time_step_s") == 30.0,
        "attributes": opened.attrs.get(ATTRIBUTES_KEY) == {"model": "nuclei"},
        "channel_names": "channel" in opened.coords,
    }
    assert {name for name, is_kept in kept.items() if is_kept} == image_format.keeps - {"axes"}


@pytest.mark.parametrize("suffix", BY_REGION)
def test_regions_are_written_in_any_order(suffix: str, tmp_path: Path) -> None:
    image = movie(("z", "y", "x"))
    with create_image(tmp_path / f"a{suffix}", axes="zyx", shape=image.shape, dtype="uint16") as writer:
        for z in (2, 0, 3, 1):
            writer.write({"z": slice(z, z + 1)}, image[z : z + 1].values)
    np.testing.assert_array_equal(open_image(writer.path, axes="zyx").values, image.values)


def test_the_longest_suffix_decides_whatever_its_case() -> None:
    assert suffix_of(Path("Cells.OME.TIF")) == ".ome.tif"
    found = format_of(Path("cells.ome.zarr"))
    assert found is not None
    assert found.name == "OME-Zarr"
    assert format_of(Path("notes.txt")) is None
    assert is_folder_path(Path("a.zarr"))


def test_no_two_formats_have_a_suffix_in_common() -> None:
    suffixes = [s for f in image_formats() for s in {*f.reads, *f.writes}]
    assert len(suffixes) == len(set(suffixes))
    assert set(image_suffixes().writable) <= set(image_suffixes().readable)


def test_finding_the_formats_imports_no_library_that_reads_files() -> None:
    code = (
        "import sys; from im2im_zoo.images import image_formats; image_formats(); "
        "print([m for m in ('bioio', 'h5py', 'imagecodecs', 'mrcfile', 'nibabel', 'nrrd', 'PIL', 'tifffile', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
