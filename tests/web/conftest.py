"""A small application and runtime for the tests of pages."""

from pathlib import Path

import pytest
from browser_pages import use_small_application, use_small_runtime


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a small built application."""
    return use_small_application(tmp_path, monkeypatch)


@pytest.fixture
def runtime_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files in place of onnxruntime-web, which are the pinned ones."""
    return use_small_runtime(tmp_path, monkeypatch)
