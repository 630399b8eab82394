"""An image that grows at a given place is gone on with, after an exception and after a kill, and ends up the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image
from im2im_zoo.images.formats.ome_zarr.pyramid import halve
from im2im_zoo.images.writer import ImageWriter

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif", ".npy")
SHAPE = (3, 600, 700)
ROWS = [slice(y, min(y + 100, 600)) for y in range(0, 600, 100)]


@pytest.fixture
def voxels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(1, 60000, SHAPE).astype(np.uint16)


def growing(folder: Path, suffix: str, **more: Any) -> ImageWriter:
    """A writer of (3, 600, 700) z, y, x whose chunks are rows of 100."""
    (folder / "work").mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "axes": "zyx",
        "shape": SHAPE,
        "dtype": "uint16",
        "chunks": (3, 100, 700) if "zarr" in suffix else None,
        "work": folder / "work" / f"a{suffix}",
    }
    return create_image(folder / f"a{suffix}", **(given | more))


def stop_after(writer: ImageWriter, voxels: NDArray[np.uint16], rows: list[slice]) -> None:
    """Write some rows, and leave by an exception."""

    def interrupted() -> None:
        with writer:
            for row in rows:
                writer.write({"y": row}, voxels[:, row])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def assert_whole(folder: Path, suffix: str, voxels: NDArray[np.uint16]) -> None:
    """The image is at its path, right at every level, and nothing else is left."""
    path = folder / f"a{suffix}"
    np.testing.assert_array_equal(open_image(path, axes="zyx").values, voxels)
    if "zarr" in suffix:
        for level in (1, 2):
            voxels = halve(voxels, (1, 2, 2), average=True)
            np.testing.assert_array_equal(open_image(path / str(level)).values, voxels)
        assert not list(path.rglob("*.partial"))
    assert sorted(p.name for p in folder.iterdir()) == sorted([path.name, "work"])
    assert list((folder / "work").iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_after_an_exception_the_rest_is_enough(
    tmp_path: Path, suffix: str, voxels: NDArray[np.uint16]
) -> None:
    stop_after(growing(tmp_path, suffix), voxels, ROWS[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["work"]
    with growing(tmp_path, suffix) as writer:
        for row in ROWS[:3]:
            writer.mark({"y": row})
        for row in ROWS[3:]:
            writer.write({"y": row}, voxels[:, row])
    assert_whole(tmp_path, suffix, voxels)


KILLED = """
import sys
from pathlib import Path
import numpy as np
from im2im_zoo.images import create_image
folder, suffix = Path(sys.argv[1]), sys.argv[2]
voxels = np.random.default_rng(0).integers(1, 60000, (3, 600, 700)).astype(np.uint16)
writer = create_image(
    folder / f"a{suffix}", axes="zyx", shape=voxels.shape, dtype="uint16",
    chunks=(3, 100, 700) if "zarr" in suffix else None, work=folder / "work" / f"a{suffix}",
    on_reduced=lambda level, block: print("level", level, block, flush=True),
)
with writer:
    for at in range(0, 600, 100):
        writer.write({"y": slice(at, at + 100)}, voxels[:, at : at + 100])
        print("row", at // 100, flush=True)
    while True:  # the last row again and again: the kill comes in the midst of writing
        writer.write({"y": slice(500, 600)}, voxels[:, 500:])
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [4, 6])
def test_after_a_kill_what_was_recorded_is_there(
    tmp_path: Path, suffix: str, rows: int, voxels: NDArray[np.uint16]
) -> None:
    (tmp_path / "work").mkdir()
    done: set[int] = set()
    reduced: set[tuple[int, int]] = set()
    command = [sys.executable, "-c", KILLED, str(tmp_path), suffix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while len(done) < rows:
            kind, *numbers = process.stdout.readline().split()
            if kind == "row":
                done.add(int(numbers[0]))
            else:
                reduced.add((int(numbers[0]), int(numbers[1])))
        os.kill(process.pid, signal.SIGKILL)
    made: list[tuple[int, int]] = []
    with growing(tmp_path, suffix, reduced=reduced, on_reduced=lambda *block: made.append(block)) as writer:
        for number, row in enumerate(ROWS):
            if number in done:
                writer.mark({"y": row})
            else:
                writer.write({"y": row}, voxels[:, row])
    assert_whole(tmp_path, suffix, voxels)
    assert not reduced & set(made)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_stays_without_being_written_again(
    tmp_path: Path, suffix: str, voxels: NDArray[np.uint16]
) -> None:
    stop_after(growing(tmp_path, suffix), voxels, ROWS)
    with growing(tmp_path, suffix):
        pass
    assert_whole(tmp_path, suffix, voxels)


ANOTHER: list[tuple[dict[str, Any], str]] = [
    ({"shape": (3, 600, 701)}, "701"),
    ({"dtype": "int16"}, "uint16, not int16"),
    ({"axes": "tyx"}, "axes"),
]
ANOTHER_ZARR: list[tuple[dict[str, Any], str]] = [
    *ANOTHER,
    ({"chunks": (1, 100, 700)}, "chunks"),
    ({"pixel_size_um": {"z": 1.0, "y": 1.0, "x": 1.0}}, "shape"),
]
SHARDED: dict[str, Any] = {"chunks": (3, 100, 100), "shards": (3, 100, 700)}


@pytest.mark.parametrize(
    ("suffix", "version", "change", "said"),
    [
        *[(".ome.zarr", version, *other) for version in ("0.4", "0.5") for other in ANOTHER_ZARR],
        (".ome.zarr", "0.5", SHARDED, "shards"),
        *[(suffix, "0.5", *other) for suffix in (".ome.tif", ".tif") for other in ANOTHER],
        *[(".npy", "0.5", *other) for other in ANOTHER[:2]],
    ],
)
def test_another_image_is_refused_and_what_is_there_is_kept(
    tmp_path: Path, suffix: str, version: str, change: dict[str, Any], said: str, voxels: NDArray[np.uint16]
) -> None:
    stop_after(growing(tmp_path, suffix, ome_zarr_version=version), voxels, ROWS[:3])
    with (
        pytest.raises(ImageError, match=said) as caught,
        growing(tmp_path, suffix, **{"ome_zarr_version": version, **change}),
    ):
        pass
    assert str(tmp_path / "work" / f"a{suffix}") in str(caught.value)
    with growing(tmp_path, suffix, ome_zarr_version=version) as writer:
        for row in ROWS[3:]:
            writer.write({"y": row}, voxels[:, row])
    assert_whole(tmp_path, suffix, voxels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_work_that_is_damaged_is_refused(tmp_path: Path, suffix: str, voxels: NDArray[np.uint16]) -> None:
    stop_after(growing(tmp_path, suffix), voxels, ROWS[:3])
    work = tmp_path / "work" / f"a{suffix}"
    if work.is_dir():
        (work / "1" / "zarr.json").write_text("{")
    else:
        with work.open("r+b") as file:
            file.truncate(work.stat().st_size // 2)
    with pytest.raises(ImageError, match="remove it to start over"), growing(tmp_path, suffix):
        pass
    assert work.exists()


BEGUN = """
import os, signal, sys
from pathlib import Path
from im2im_zoo.images import create_image
folder, suffix = Path(sys.argv[1]), sys.argv[2]
# The last thing before a start gets its name.
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
with create_image(
    folder / f"a{suffix}", axes="zyx", shape=(3, 600, 700), dtype="uint16",
    chunks=(3, 100, 700) if "zarr" in suffix else None, work=folder / "work" / f"a{suffix}",
):
    print("begun")
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_start_that_was_killed_leaves_nothing_that_looks_begun(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", BEGUN, str(tmp_path), suffix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == -signal.SIGKILL
    [left] = (tmp_path / "work").iterdir()
    assert left.name.startswith(f".a{suffix}.partial-")
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_start_on_a_full_disk_leaves_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageError, match="disk is full"), growing(tmp_path, suffix):
        pass
    assert not list((tmp_path / "work").iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_until_it_is_complete_an_ome_zarr_is_marked_and_no_image(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    stop_after(growing(tmp_path, ".ome.zarr"), voxels, ROWS[:3])
    work = tmp_path / "work/a.ome.zarr"
    assert json.loads((work / "zarr.json").read_text())["attributes"]["im2im_zoo"]["incomplete"] is True
    with pytest.raises(ImageError, match="without image metadata"):
        open_image(work)
    with growing(tmp_path, ".ome.zarr", attributes={"package": "p"}):
        pass
    assert dict(zarr.open_group(tmp_path / "a.ome.zarr").attrs)["im2im_zoo"] == {"package": "p"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_path_that_was_taken_meanwhile_is_not_touched_and_the_work_is_kept(
    tmp_path: Path, suffix: str, voxels: NDArray[np.uint16]
) -> None:
    def too_late() -> None:
        with growing(tmp_path, suffix) as writer:
            writer.write({}, voxels)
            with create_image(tmp_path / f"a{suffix}", axes="zyx", shape=SHAPE, dtype="uint16") as other:
                other.write({}, voxels // 2)

    with pytest.raises(ImageError, match="kept at"):
        too_late()
    np.testing.assert_array_equal(open_image(tmp_path / f"a{suffix}", axes="zyx").values, voxels // 2)
    # Completed, not moved: it is gone on with all the same, and replaces only when told to.
    with pytest.raises(ImageError, match="exists already"):
        growing(tmp_path, suffix)
    with growing(tmp_path, suffix, overwrite=True):
        pass
    assert_whole(tmp_path, suffix, voxels)


def test_a_folder_of_something_else_that_came_meanwhile_is_kept(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    def too_late() -> None:
        with growing(tmp_path, ".ome.zarr", overwrite=True) as writer:
            writer.write({}, voxels)
            (tmp_path / "a.ome.zarr").mkdir()
            (tmp_path / "a.ome.zarr/thesis.txt").write_text("years")

    with pytest.raises(ImageError, match=r"not replaced.*kept at"):
        too_late()
    assert (tmp_path / "a.ome.zarr/thesis.txt").read_text() == "years"


def test_a_place_to_work_in_must_be_there_and_on_the_same_disk(tmp_path: Path) -> None:
    given: dict[str, Any] = {"axes": "yx", "shape": (4, 5), "dtype": "uint8"}
    with pytest.raises(ImageError, match=r"folder .*nowhere does not exist"):
        create_image(tmp_path / "a.tif", **given, work=tmp_path / "nowhere" / "a.tif")
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    with pytest.raises(ImageError, match="another disk"):
        create_image(tmp_path / "a.tif", **given, work=memory / "a.tif")


def test_a_large_tiff_is_gone_on_with(tmp_path: Path) -> None:
    """BigTIFF, sparse: 6 GB of which little is written."""
    given: dict[str, Any] = {"axes": "zyx", "shape": (3, 32768, 65536), "dtype": "uint8"}
    block = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
    corners = [{"z": slice(z, z + 1), "y": slice(32758, 32768), "x": slice(65526, 65536)} for z in (0, 2)]
    work = tmp_path / "work.tif"
    for corner in corners:

        def part(corner: dict[str, slice] = corner) -> None:
            with create_image(tmp_path / "a.tif", **given, work=work) as writer:
                writer.write(corner, block)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            part()
    with create_image(tmp_path / "a.tif", **given, work=work):
        pass
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    opened = open_image(tmp_path / "a.tif")
    for corner in corners:
        np.testing.assert_array_equal(opened.isel(corner).values, block)
    assert not opened.isel(z=1, y=slice(32758, None)).values.any()


@pytest.mark.parametrize("shards", [None, (3, 200, 700)])
def test_chunks_that_a_power_cut_has_cut_short_are_written_over(
    tmp_path: Path, shards: tuple[int, ...] | None, voxels: NDArray[np.uint16]
) -> None:
    more: dict[str, Any] = {"shape": (3, 550, 700), "shards": shards}
    cut = voxels[:, :550]
    rows = [slice(0, 200), slice(200, 400), slice(400, 550)]
    stop_after(growing(tmp_path, ".ome.zarr", **more), cut, rows)
    chunks = [p for p in (tmp_path / "work").rglob("c/*/*/*") if p.is_file()]
    assert len(chunks) > len(rows)
    for chunk in chunks:
        os.truncate(chunk, chunk.stat().st_size // 3)
    with growing(tmp_path, ".ome.zarr", **more) as writer:
        for row in rows:
            writer.write({"y": row}, cut[:, row])
    assert_whole(tmp_path, ".ome.zarr", cut)


def test_chunks_that_never_got_their_names_are_removed(tmp_path: Path, voxels: NDArray[np.uint16]) -> None:
    stop_after(growing(tmp_path, ".ome.zarr"), voxels, ROWS)
    (tmp_path / "work/a.ome.zarr/0/c/0/1/0.ab12.partial").write_bytes(b"half")
    with growing(tmp_path, ".ome.zarr"):
        pass
    assert_whole(tmp_path, ".ome.zarr", voxels)
