"""Which engine is selected, measured in a subprocess or in this process."""

import shutil
from pathlib import Path

import onnx
import pytest

from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import open_package
from im2im_zoo.runtime.measure.select_engine import SelectedEngine, open_network


@pytest.fixture
def package(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with ONNX and TorchScript weights and test tensors, and nothing measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(
        repository / "tests" / "released" / "0.1.0" / "semantic" / "package", tmp_path / "package"
    )


def selected(package: Path, in_process: bool) -> SelectedEngine:
    with open_package(package) as opened:
        return open_network(opened, threads=1, in_process=in_process)


@pytest.mark.parametrize("in_process", [False, True], ids=["subprocess", "in process"])
def test_the_fastest_is_selected_and_measured_once(package: Path, in_process: bool) -> None:
    first = selected(package, in_process)
    ways = {(c.weights_format, c.backend) for c in first.candidates}
    assert {("onnx", "onnxruntime"), ("torchscript", "torch")} <= ways
    fastest = min(first.candidates, key=lambda c: c.seconds or float("inf"))
    assert (first.engine.weights_format, first.engine.backend) == (fastest.weights_format, fastest.backend)
    assert first.reason.startswith("on its test tensors: ")
    (known,) = selected(package, in_process).candidates
    assert (known.backend, known.seconds) == (first.engine.backend, None)


def test_weights_that_do_not_reproduce_the_test_tensors_are_dropped(package: Path) -> None:
    path, rdf = package / "weights.onnx", package / "rdf.yaml"
    before = sha256(path)
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, path)
    rdf.write_text(rdf.read_text(encoding="utf-8").replace(before, sha256(path)), encoding="utf-8")
    found = selected(package, in_process=True)
    dropped = {c.weights_format for c in found.candidates if c.seconds is None}
    assert dropped == {"onnx"}
    assert all("do not reproduce the test tensor" in c.note for c in found.candidates if c.note)
    assert "onnx by onnxruntime was dropped" in found.reason
