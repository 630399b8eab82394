"""`try` and `serve` refuse before they do anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from im2im_zoo.workflows.browser import page


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


def test_export_refuses_a_page_before_it_exports(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    done = cli("export", tmp_path, "--output", tmp_path / "package", "--try-page", tmp_path / "try.html")
    assert done.code == 1
    assert "run `make web`" in done.err
    assert list(tmp_path.iterdir()) == []
