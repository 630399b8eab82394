"""`try`, `serve` and `export` write a page, or refuse before they do anything."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_pages import use_small_application, use_small_runtime

from im2im_zoo.workflows.browser import onnxruntime, page


def test_try_names_the_build_and_keeps_an_earlier_page(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    path = tmp_path / "try.html"
    done = cli("try", "nuclei_2d", "-o", path)
    assert done.code == 1
    assert "run `make web`" in done.err
    path.write_text("earlier")
    done = cli("try", "nuclei_2d", "-o", path)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert path.read_text() == "earlier"
    assert cli("try", "nuclei_2d", "-o", tmp_path / "none" / "try.html").code == 2
    assert cli("serve", "nuclei_2d").code == 1


def test_a_missing_package_is_named_before_a_missing_build(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    for command in (["try", "nope", "-o", tmp_path / "try.html"], ["serve", "nope"]):
        done = cli(*command)
        assert done.code == 1
        assert "nope" in done.err
        assert "make web" not in done.err


def test_export_refuses_a_page_before_it_exports(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    command = ("export", tmp_path, "--output", tmp_path / "package", "--try-page", tmp_path / "try.html")
    done = cli(*command)
    assert done.code == 1
    assert "run `make web`" in done.err
    assert cli(*command, "--no-try-page").code == 2
    assert list(tmp_path.iterdir()) == []


def test_export_writes_a_page_unless_it_is_not_built_or_wanted_elsewhere(
    cli: Callable[..., Any], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, zipped = tmp_path / "package", tmp_path / "package.zip"
    export = ("export", tiny_run, "--output", folder, "--zip", zipped, "--weights", "onnx", "--overwrite")

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network is not asked")

    monkeypatch.setattr(onnxruntime, "download", fail)
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    done = cli(*export)
    assert done.code == 0
    assert (
        f"note: there is no try.html to run the package in a browser: the page is not built: {tmp_path}"
        in done.err
    )
    assert f"then im2im-zoo try {folder} -o {folder / 'try.html'}" in done.err
    without = sorted(p.name for p in folder.iterdir())
    assert "try.html" not in without

    use_small_application(tmp_path, monkeypatch)
    use_small_runtime(tmp_path, monkeypatch, build=True)
    done = cli(*export)
    assert done.code == 0
    assert "try.html" not in done.err.replace(str(folder / "try.html"), "")
    assert sorted(p.name for p in folder.iterdir()) == sorted([*without, "try.html"])
    with zipfile.ZipFile(zipped) as archive:
        assert sorted(archive.namelist()) == without

    elsewhere = tmp_path / "page.html"
    assert cli(*export, "--try-page", elsewhere).code == 0
    assert elsewhere.is_file()
    assert sorted(p.name for p in folder.iterdir()) == without
