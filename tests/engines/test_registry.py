"""The registry: engines are found by their files, in an order that is fixed, and without loading any library."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines import (
    PRECISIONS,
    library_version,
    open_engine,
    runs_code,
    vet_weights,
    weights_formats,
)
from im2im_zoo.engines import registry as module
from im2im_zoo.engines.base import BaseEngine, SafetyCheck, Weights
from im2im_zoo.engines.registry import engine_classes, engines_of


def test_the_order_without_measurements_is_pinned() -> None:
    assert weights_formats() == (
        "onnx",
        "torchscript",
        "keras_v3",
        "keras_hdf5",
        "tensorflow_saved_model_bundle",
        "pytorch_state_dict",
    )
    assert [e.backend for e in engines_of("onnx")] == ["onnxruntime", "openvino", "tensorrt"]
    assert [e.backend for e in engines_of("torchscript")] == ["torch", "openvino"]


def test_only_a_state_dict_runs_code() -> None:
    assert [name for name in weights_formats() if runs_code(name)] == ["pytorch_state_dict"]


@pytest.mark.parametrize("engine", engine_classes(), ids=lambda e: e.__name__)
def test_every_engine_states_what_it_is(engine: type[BaseEngine]) -> None:
    assert engine.backend
    assert all(callable(check) for check in engine.formats.values())
    assert engine.devices
    assert set(engine.precisions) <= set(PRECISIONS)
    assert "float32" in engine.precisions
    assert engine.distributions
    assert engine.extra


def test_finding_the_engines_imports_no_library() -> None:
    code = (
        "import sys; from im2im_zoo.engines import weights_formats; weights_formats(); "
        "print([m for m in ('torch', 'onnxruntime', 'openvino', 'keras', 'tensorflow', 'bioimageio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_engine_that_is_added_cannot_loosen_the_check_of_a_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    class Careless(BaseEngine):
        backend = "careless"
        formats: ClassVar[Mapping[str, SafetyCheck]] = {"onnx": lambda weights: called.append(weights.format)}

        def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
            return []

        @classmethod
        def is_installed(cls, weights_format: str) -> bool:
            return True

    found = (Careless, *engine_classes())
    monkeypatch.setattr(module, "engine_classes", lambda: found)
    (tmp_path / "weights.onnx").write_bytes(b"\xff" * 20)
    with pytest.raises(PackageError, match="cannot be loaded"):
        open_engine("onnx", tmp_path / "weights.onnx", backend="careless")
    assert called == ["onnx"]


def test_weights_without_an_engine_do_not_pass_as_safe(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"anything")
    with pytest.raises(PackageError, match="'tensorflow_js' cannot be run here"):
        vet_weights("tensorflow_js", tmp_path / "weights")


def test_a_precision_that_a_library_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(
        PackageError, match="onnxruntime runs it in float32 only, not in bfloat16; use float32"
    ):
        open_engine("onnx", tmp_path / "weights.onnx", backend="onnxruntime", precision="bfloat16")


def test_the_version_of_an_engine_that_is_not_ours_is_that_of_its_distribution() -> None:
    assert library_version("numpy").startswith("numpy ")
    assert library_version("no_such_library") == ""


def test_weights_are_named_with_their_format(tmp_path: Path) -> None:
    assert str(Weights("onnx", Path("a.onnx"), tmp_path)) == "a.onnx (onnx)"
