"""Output appears complete or not at all, and is never written where it must not be."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import create_image, open_image, write_image
from im2im_zoo.images.writer import ImageWriter

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif", ".npy")


def plane(value: int) -> xr.DataArray:
    return xr.DataArray(np.full((20, 30), value, np.uint8), dims=("y", "x"))


def writer_of(path: Path, **more: object) -> ImageWriter:
    return create_image(path, axes="yx", shape=(20, 30), dtype="uint8", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_at_the_path_before_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with writer_of(path) as writer:
        writer.write({"y": slice(0, 10)}, np.ones((10, 30), np.uint8))
        assert not path.exists()
        assert all(p.name.startswith(".") for p in tmp_path.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with writer_of(tmp_path / f"a{suffix}") as writer:
            writer.write({}, np.ones((20, 30), np.uint8))
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_a_source_that_fails_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "source.npy"
    np.save(source, np.ones((2000, 30), np.uint8))
    image = open_image(source)
    with source.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ImageError, match=r"source.npy"):
        write_image(image, tmp_path / f"a{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == ["source.npy"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_process_leaves_nothing_at_the_path(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    code = """
import sys, time
import numpy as np
from im2im_zoo.images import create_image
with create_image(sys.argv[1], axes="yx", shape=(20, 30), dtype="uint8") as writer:
    writer.write({}, np.ones((20, 30), np.uint8))
    print("written", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not path.exists()
    write_image(plane(3), path)
    assert (open_image(path) == 3).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_replacement_leaves_the_image_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = write_image(plane(1), tmp_path / f"a{suffix}")
    failing = xr.DataArray(np.full((20, 30), 2.0), dims=("y", "x"))

    def replace() -> None:
        with writer_of(path, overwrite=True) as writer:
            writer.write({"y": slice(0, 10)}, plane(2).values[:10])
            writer.write({}, failing.values)

    with pytest.raises(ImageError, match="float64"):
        replace()
    assert (open_image(path) == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_an_existing_image_is_replaced_only_when_told_and_only_at_the_end(
    tmp_path: Path, suffix: str
) -> None:
    path = write_image(plane(1), tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match=r"exists already.*overwrite"):
        write_image(plane(2), path)
    assert (open_image(path) == 1).all()
    if suffix != ".png":
        with writer_of(path, overwrite=True) as writer:
            writer.write({}, plane(3).values)
            assert (open_image(path) == 1).all()
        assert (open_image(path) == 3).all()
    write_image(plane(2), path, overwrite=True)
    assert (open_image(path) == 2).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_can_be_overwritten_with_what_is_read_from_it(tmp_path: Path, suffix: str) -> None:
    path = write_image(plane(7), tmp_path / f"a{suffix}")
    write_image(open_image(path), path, overwrite=True)
    assert (open_image(path) == 7).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_came_between_is_not_touched_and_ours_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"

    def too_late() -> None:
        with writer_of(path) as writer:
            writer.write({}, plane(2).values)
            write_image(plane(1), path)

    with pytest.raises(ImageError, match="kept at") as caught:
        too_late()
    assert (open_image(path) == 1).all()
    kept = Path(str(caught.value).rsplit(" ", 1)[1])
    kept.rename(tmp_path / f"b{suffix}")
    assert (open_image(tmp_path / f"b{suffix}") == 2).all()


def test_a_folder_that_is_no_zarr_is_never_replaced(tmp_path: Path) -> None:
    for name in ("a.zarr", "a.tif"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years")
        with pytest.raises(ImageError, match="not replaced"):
            write_image(plane(1), tmp_path / name, overwrite=True)
        assert (tmp_path / name / "thesis.txt").read_text() == "years"


def test_a_file_does_not_become_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("a file")
    with pytest.raises(ImageError, match="is a file"):
        write_image(plane(1), tmp_path / "a.zarr", overwrite=True)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"folder .*nowhere does not exist"):
        write_image(plane(1), tmp_path / "nowhere" / "a.tif")


FULL = """
import resource, signal, sys
import numpy as np
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with create_image(sys.argv[1], axes="yx", shape=(1000, 1000), dtype="uint16") as writer:
        for y in range(0, 1000, 100):
            block = np.random.default_rng(y).integers(0, 65535, (100, 1000)).astype(np.uint16)
            writer.write({"y": slice(y, y + 100)}, block)
except ImageError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_said_with_the_bytes_needed_and_free(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert "disk is full" in done.stdout
    assert "2 MiB uncompressed" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match="cannot be written there"):
        write_image(plane(1), tmp_path / "a.tif")


def test_regions_and_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with writer_of(tmp_path / "a.tif") as writer:
        with pytest.raises(AxesError, match="names z"):
            writer.write({"z": slice(0, 1)}, np.ones((20, 30), np.uint8))
        with pytest.raises(ImageError, match="not within the 20 voxels"):
            writer.write({"y": slice(10, 21)}, np.ones((11, 30), np.uint8))
        with pytest.raises(ImageError, match="step 1"):
            writer.write({"y": slice(0, 20, 2)}, np.ones((10, 30), np.uint8))
        with pytest.raises(ImageError, match=r"\(10, 30\).*\(20, 30\)"):
            writer.write({}, np.ones((10, 30), np.uint8))
        with pytest.raises(ImageError, match=r"uint8.*float64"):
            writer.write({}, np.ones((20, 30)))
    with pytest.raises(ImageError, match="not open"):
        writer.write({}, np.ones((20, 30), np.uint8))


def test_chunks_are_in_the_callers_order(tmp_path: Path) -> None:
    given = {"axes": "xyzc", "shape": (90, 80, 70, 2), "dtype": "uint8"}
    writer = create_image(tmp_path / "a.zarr", **given, chunks=(30, 40, 10, 1))  # type: ignore[arg-type]
    assert writer.chunks == (30, 40, 10, 1)
    assert create_image(tmp_path / "a.zarr", **given).chunks == (90, 80, 70, 1)  # type: ignore[arg-type]
    assert create_image(tmp_path / "a.tif", **given).chunks == (1, 1, 1, 1)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"axes": "byx", "shape": (1, 4, 5)}, "no batch axis"),
        ({"axes": "zyx"}, "one size above zero"),
        ({"shape": (0, 5)}, "one size above zero"),
        ({"dtype": "complex64"}, "complex64 cannot be written"),
        ({"dtype": "float32", "labels": True}, "label images hold integers"),
        ({"pixel_size_um": {"y": -1.0}}, "above zero, not y -1.0"),
        ({"channel_names": ["a"]}, "do not fit"),
        ({"attributes": {"a": object()}}, "JSON"),
        ({"path": "a.xyz"}, r"\.ome\.zarr, .*\.npy"),
        ({"path": "a.png"}, "region by region"),
        ({"path": "a.tif", "axes": "ix"}, "planes of y, x"),
        ({"path": "a.zarr", "axes": "zx"}, "has y, x"),
        ({"chunks": (0, 5)}, "chunks"),
    ],
)
def test_an_image_that_cannot_be_written_is_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    given: dict[str, object] = {"path": "a.zarr", "axes": "yx", "shape": (4, 5), "dtype": "uint8"} | wrong
    path = tmp_path / str(given.pop("path"))
    with pytest.raises((ImageError, AxesError), match=said):
        create_image(path, **given)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dims", "dtype"), [(("z", "y", "x"), "uint8"), (("y", "x"), "float32")])
def test_png_refuses_what_it_cannot_hold(tmp_path: Path, dims: tuple[str, ...], dtype: str) -> None:
    with pytest.raises(ImageError, match=r"a PNG takes y, x.*write .ome.tif"):
        write_image(xr.DataArray(np.ones((4,) * len(dims), dtype), dims=dims), tmp_path / "a.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_threads_may_write_different_chunks(tmp_path: Path, suffix: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    spans = [slice(a, a + 16) for a in range(0, 64, 16)]
    path = tmp_path / f"a{suffix}"
    with create_image(path, axes="yx", shape=(64, 64), dtype="uint8", chunks=(16, 16)) as writer:

        def write(key: tuple[slice, slice]) -> None:
            writer.write({"y": key[0], "x": key[1]}, voxels[key])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, [(p, q) for p in spans for q in spans]))
    np.testing.assert_array_equal(open_image(path).values, voxels)
