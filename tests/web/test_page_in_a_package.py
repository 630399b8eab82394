"""The page in the folder of a package is no part of it, and states the metadata that the package has."""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from browser_pages import use_small_runtime
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.resources import packaged_models
from im2im_zoo.package import open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.packaging.editing.changes import Changes
from im2im_zoo.packaging.editing.edit import edit_package
from im2im_zoo.packaging.export.output_folder import write_zip
from im2im_zoo.packaging.publishing.publishable_files import list_publishable_files
from im2im_zoo.packaging.try_page import TRY_PAGE
from im2im_zoo.workflows.browser import onnxruntime
from im2im_zoo.workflows.browser.page import add_page


@pytest.fixture
def package(tmp_path: Path, application: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packaged model of nuclei with its page, as `export` writes it."""
    use_small_runtime(tmp_path, monkeypatch, build=True)
    (folder,) = (packaged_models() / "nuclei_2d").iterdir()
    copy = shutil.copytree(folder, tmp_path / ".nuclei.partial")
    assert add_page(copy, tmp_path / "nuclei") is None
    return copy.rename(tmp_path / "nuclei")


def facts_of(folder: Path) -> dict[str, Any]:
    text = (folder / TRY_PAGE).read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    facts: dict[str, Any] = json.loads(found)
    return facts


def test_the_page_names_the_package_by_the_folder_that_users_see(package: Path) -> None:
    assert facts_of(package)["command"] == "im2im-zoo predict nuclei IMAGE RESULT"
    assert ".partial" not in (package / TRY_PAGE).read_text(encoding="utf-8")


def test_it_is_neither_in_the_zip_nor_sent_and_the_package_stays_valid(package: Path, tmp_path: Path) -> None:
    write_zip(package, tmp_path / "nuclei.zip")
    with zipfile.ZipFile(tmp_path / "nuclei.zip") as archive:
        assert set(archive.namelist()) == {p.name for p in package.iterdir()} - {TRY_PAGE}
    with open_package(package) as opened:
        assert TRY_PAGE not in {file.name for file in list_publishable_files(opened)}
    assert validate_package(package).sound


def test_an_edited_package_has_a_page_with_the_new_metadata(package: Path, tmp_path: Path) -> None:
    before = (package / TRY_PAGE).read_bytes()
    other = tmp_path / "other"
    edit_package(package, Changes(description="About </script> nuclei.", version="2.0.0"), output=other)
    assert (package / TRY_PAGE).read_bytes() == before
    facts = facts_of(other)
    assert (facts["description"], facts["version"]) == ("About </script> nuclei.", "2.0.0")
    assert facts["command"] == "im2im-zoo predict other IMAGE RESULT"
    assert facts["parts"] == facts_of(package)["parts"]
    edit_package(package, Changes(name="Renamed again"))
    assert facts_of(package)["name"] == "Renamed again"
    page, (start, end) = (package / TRY_PAGE).read_bytes(), (b'id="facts">', b"</script>")
    assert page.partition(start)[0] == before.partition(start)[0]
    assert page.partition(start)[2].partition(end)[2] == before.partition(start)[2].partition(end)[2]


def test_a_file_of_that_name_that_is_no_page_is_kept_by_edit(package: Path) -> None:
    (package / TRY_PAGE).write_text("mine")
    edit_package(package, Changes(name="Renamed"))
    assert (package / TRY_PAGE).read_text() == "mine"


def test_a_package_that_no_page_runs_has_none_and_the_reason_names_its_folder(
    application: Path, tmp_path: Path
) -> None:
    folder = build_package(tmp_path / ".p.partial", small_unet(), weights=("torchscript",))
    reason = add_page(folder, tmp_path / "p")
    assert reason is not None
    assert reason.startswith(f"{tmp_path / 'p'} has no ONNX weights")
    assert "--weights onnx" in reason
    assert not (folder / TRY_PAGE).exists()


def test_without_onnxruntime_there_is_no_page_and_the_command_is_named(
    application: Path, runtime_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def download(url: str, *, policy: Any, **_: Any) -> Path:
        waits.append(policy.timeout_s)
        raise PackageError(f"{url} could not be downloaded: no network; check the network")

    monkeypatch.setattr(onnxruntime, "download", download)
    (model,) = (packaged_models() / "nuclei_2d").iterdir()
    folder = shutil.copytree(model, tmp_path / "nuclei")
    reason = add_page(folder, folder)
    assert reason is not None
    assert "could not be downloaded" in reason
    assert f"to write it later: im2im-zoo try {folder} -o {folder / TRY_PAGE}" in reason
    assert waits == [5.0]
    assert not (folder / TRY_PAGE).exists()
