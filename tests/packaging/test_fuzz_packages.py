"""Whatever is done to a package: nothing of it runs without consent, nothing is written, and the only errors are ours."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hostile_packages import build_base, spoil, spoil_zip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.package import open_package
from im2im_zoo.package.hashes import check_hashes
from im2im_zoo.packaging import validate_package
from im2im_zoo.packaging.validation.finding_codes import CODES
from im2im_zoo.packaging.validation.page import validation_page
from im2im_zoo.runtime import predict_arrays

IMAGE = xr.DataArray(
    np.random.default_rng(0).random((1, 50, 60), dtype=np.float32), dims=("channel", "y", "x"), name="image"
)

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the sound package, where temporary files and the user's cache are, too."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("temporary", "cache", "work"):
        (folder / name).mkdir()
    build_base(folder / "base", folder / "canary")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    kept, tempfile.tempdir = tempfile.tempdir, str(folder / "temporary")
    try:
        yield folder
    finally:
        tempfile.tempdir = kept
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """All files but those of the cache, with their sizes and times."""
    found = {p: p.lstat() for p in folder.rglob("*") if "cache" not in p.relative_to(folder).parts}
    # bioimageio.spec 0.5.12 draws a cover for a package without one, and leaves it where temporary files are.
    drawn = [p for p in found if p.name == "cover.png" and p.parents[1] == folder / "temporary"]
    return {str(p): (s.st_size, s.st_mtime_ns) for p, s in found.items() if not p.is_dir() and p not in drawn}


def run_on_a_broken_one(
    place: Path, data: st.DataObject, act: Callable[[Path], None], *, zips: bool = False
) -> None:
    """Do something with a broken package, and look at what is there afterwards."""
    work = place / "work"
    shutil.rmtree(work)
    (work / "here").mkdir(parents=True)
    (work / "outside").write_text("secret")
    target = Path(shutil.copytree(place / "base", work / "package"))
    if zips:
        spoil_zip(target, work / "package.zip", data)
        shutil.rmtree(target)
        target = work / "package.zip"
    else:
        spoil(target, data)
    before = listing(place)
    with chdir(work / "here"):
        act(target)
    assert not (place / "canary").exists(), "code of the package ran"
    assert listing(place) == before
    assert not Path("/tmp/evil_of_a_zip").exists()


def opened(path: Path) -> None:
    with suppress(Im2ImError), open_package(path) as package:
        check_hashes(package)


def validated(path: Path) -> None:
    report = validate_package(path, pictures=True)
    assert report.to_json()
    assert {f.code for f in report.findings} <= set(CODES)
    assert all(f.message for f in report.findings)
    assert "secret" not in validation_page(report)


def predicted(path: Path) -> None:
    with suppress(Im2ImError), open_package(path) as package:
        predict_arrays(package, IMAGE, weights=package.weights[0], halo="declared", memory=2 * 10**9)


def test_the_package_that_is_broken_is_sound_and_its_code_leaves_a_mark(place: Path) -> None:
    report = validate_package(place / "base")
    assert report.sound, report.of("error")
    assert not (place / "canary").exists()
    assert validate_package(place / "base", weights=["pytorch_state_dict"], allow_code=True).sound
    assert (place / "canary").exists()
    (place / "canary").unlink()


@some
@given(data=st.data(), zips=st.booleans())
def test_opening_a_broken_package(place: Path, data: st.DataObject, zips: bool) -> None:
    run_on_a_broken_one(place, data, opened, zips=zips)


@few
@given(data=st.data(), zips=st.integers(0, 3).map(lambda n: n == 0))
def test_validating_a_broken_package(place: Path, data: st.DataObject, zips: bool) -> None:
    run_on_a_broken_one(place, data, validated, zips=zips)


@few
@given(data=st.data())
def test_predicting_with_a_broken_package(place: Path, data: st.DataObject) -> None:
    run_on_a_broken_one(place, data, predicted)


@pytest.mark.slow
@many
@given(data=st.data(), zips=st.integers(0, 3).map(lambda n: n == 0))
def test_validating_many_broken_packages(place: Path, data: st.DataObject, zips: bool) -> None:
    run_on_a_broken_one(place, data, validated, zips=zips)


@pytest.mark.slow
@many
@given(data=st.data())
def test_predicting_with_many_broken_packages(place: Path, data: st.DataObject) -> None:
    run_on_a_broken_one(place, data, predicted)
