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


def use_small_application(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small built application, and use it; return its path."""
    path = folder / "built" / "app.html"
    path.parent.mkdir()
    path.write_text(APPLICATION)
    monkeypatch.setattr(page, "_APPLICATION", path)
    return path


def use_small_runtime(folder: Path, monkeypatch: pytest.MonkeyPatch, *, build: bool = False) -> Path:
    """Write files in place of onnxruntime-web, and pin them; return their folder, which is that of the build if `build`."""
    place = folder / "dist"
    place.mkdir()
    files = {}
    for name, file in onnxruntime.pinned().files.items():
        content = f"content of {name}".encode()
        (place / file.name).write_bytes(content)
        files[name] = PinnedFile(file.name, sha256_of(content))
    known = OnnxRuntimeWeb("1.2.3", "https://example.com/ort.tgz", "0" * 64, files)
    monkeypatch.setattr(onnxruntime, "pinned", lambda: known)
    monkeypatch.setattr(onnxruntime, "_BUILD", place if build else folder / "nowhere")
    return place
