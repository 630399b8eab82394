"""HDF5 as ilastik, PlantSeg and BigDataViewer write it."""

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import missing_chunks, open_image, pixel_size_um

VOXELS = np.random.default_rng(0).integers(0, 2**16, (4, 20, 30), np.uint16)


def dataset(file: h5py.File, name: str, data: Any = VOXELS, **attributes: Any) -> None:
    file.create_dataset(name, data=data, chunks=True, compression="gzip").attrs.update(attributes)


def test_the_only_image_is_taken_with_the_axes_that_ilastik_states(tmp_path: Path) -> None:
    tags = json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0} for key in "tzyxc"]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset(file, "exported_data", VOXELS[None, ..., None], axistags=tags)
        file["names"] = np.arange(5)
        file["about/table"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
    opened = open_image(tmp_path / "a.h5")
    assert opened.dims == ("time", "z", "y", "x", "channel")
    np.testing.assert_array_equal(opened.values, VOXELS[None, ..., None])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(opened))[0, 1:3, ::2, 5:, 0].values, VOXELS[1:3, ::2, 5:]
    )


@pytest.fixture
def plantseg(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset(file, "raw", element_size_um=[0.3, 0.1, 0.2])
        dataset(file, "label", VOXELS % 7, element_size_um=[0.3, 0.1, 0.2])
    return tmp_path / "a.h5"


def test_of_several_images_one_is_named_by_its_path(plantseg: Path) -> None:
    with pytest.raises(
        ImageError, match=r"holds 2 datasets: label \(4, 20, 30\) uint16, raw .*'a.h5:/label'"
    ):
        open_image(plantseg)
    opened = open_image(f"{plantseg}:/raw")
    assert opened.dims == ("z", "y", "x")
    assert pixel_size_um(opened) == {"z": 0.3, "y": 0.1, "x": 0.2}
    np.testing.assert_array_equal(opened.values, VOXELS)
    with pytest.raises(ImageError, match="no dataset 'rew'; its datasets are label, raw"):
        open_image(f"{plantseg}:/rew")
    with pytest.raises(ImageError, match="by its path"):
        open_image(f"{plantseg}#1")


def test_axes_come_from_the_labels_of_dimensions_or_are_asked_for(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset(file, "labelled")
        dataset(file, "bare")
        for number, letter in enumerate("cyx"):
            file["labelled"].dims[number].label = letter
    assert open_image(f"{tmp_path}/a.h5:/labelled").dims == ("channel", "y", "x")
    with pytest.raises(AxesError, match="does not say which axes"):
        open_image(f"{tmp_path}/a.h5:/bare")
    assert open_image(f"{tmp_path}/a.h5:/bare", axes="zyx").shape == (4, 20, 30)


def bdv(path: Path, unit: str = "µm") -> None:
    with h5py.File(path, "w") as file:
        for level in range(2):
            step = slice(None, None, level + 1)
            dataset(file, f"t00000/s00/{level}/cells", VOXELS[step, step, step].view(np.int16))
        file["s00/resolutions"] = np.ones((2, 3))
    size = f"<voxelSize><unit>{unit}</unit><size>0.1 0.2 0.3</size></voxelSize>"
    path.with_suffix(".xml").write_text(
        f"<SpimData><ViewSetup><id>0</id>{size}</ViewSetup></SpimData>", encoding="utf-8"
    )


def test_big_data_viewer_is_read_as_unsigned_with_its_voxel_size(tmp_path: Path) -> None:
    bdv(tmp_path / "a.h5")
    opened = open_image(tmp_path / "a.h5")
    assert opened.dims == ("z", "y", "x")
    assert pixel_size_um(opened) == {"z": 0.3, "y": 0.2, "x": 0.1}
    assert VOXELS.max() > 2**15
    np.testing.assert_array_equal(opened.values, VOXELS)
    np.testing.assert_array_equal(opened[1, 3:9, ::2].values, VOXELS[1, 3:9, ::2])
    assert pixel_size_um(open_image(f"{tmp_path}/a.h5:/t00000/s00/1/cells")) == {}


def test_chunks_that_were_never_written_are_counted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", shape=(100, 90), chunks=(10, 10), dtype="u1")[:10, :20] = 1
    [(_, found)] = missing_chunks(open_image(tmp_path / "a.h5"))
    assert (found.missing, found.total) == (88, 90)


def test_voxels_in_other_files_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        dataset(file, "raw")
    (tmp_path / "raw.bin").write_bytes(bytes(600))
    layout = h5py.VirtualLayout((20, 30), "u2")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "raw", shape=VOXELS.shape)[0]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "/raw")
        file["soft"] = h5py.SoftLink("/link")
        file.create_dataset("external", (20, 30), "u1", external=[(str(tmp_path / "raw.bin"), 0, 600)])
        file.create_virtual_dataset("virtual", layout)
    for name, reason in (
        ("link", "is a link"),
        ("soft", "is a link"),
        ("external", "in other files"),
        ("virtual", "in other files"),
    ):
        with pytest.raises(ImageError, match=reason):
            open_image(f"{tmp_path}/a.h5:/{name}")


def test_a_file_that_is_damaged_or_cut_short_is_named(plantseg: Path, tmp_path: Path) -> None:
    content = plantseg.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5").write_text("not hdf5")
    for name in ("short.h5", "text.h5"):
        with pytest.raises(ImageError, match=rf"{name}.*(again)"):
            open_image(tmp_path / name)


def test_a_missing_library_is_named_with_its_extra(plantseg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImageError, match=r'pip install "im2im_zoo\[hdf5\]"; or open it in Fiji'):
        open_image(plantseg)
