"""A small application in place of the built one, and files in place of onnxruntime-web, so that tests need neither npm nor a network."""

from pathlib import Path

import pytest

from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.workflows.browser import onnxruntime, page
from im2im_zoo.workflows.browser.onnxruntime import OnnxRuntimeWeb, PinnedFile

APPLICATION = """<!doctype html>
<html><head><!--im2im-zoo:head--><style>p { color: red }</style></head>
<body><!--im2im-zoo:parts--><script type="module">start();</script></body></html>
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a small built application."""
    path = tmp_path / "built" / "app.html"
    path.parent.mkdir()
    path.write_text(APPLICATION)
    monkeypatch.setattr(page, "_APPLICATION", path)
    return path


@pytest.fixture
def runtime_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files in place of onnxruntime-web, which are the pinned ones."""
    folder = tmp_path / "dist"
    folder.mkdir()
    files = {}
    for name, file in onnxruntime.pinned().files.items():
        content = f"content of {name}".encode()
        (folder / file.name).write_bytes(content)
        files[name] = PinnedFile(file.name, sha256_of(content))
    known = OnnxRuntimeWeb("1.2.3", "https://example.com/ort.tgz", "0" * 64, files)
    monkeypatch.setattr(onnxruntime, "pinned", lambda: known)
    monkeypatch.setattr(onnxruntime, "_BUILD", tmp_path / "nowhere")
    return folder
