"""The engine of docs/adding-an-engine.md runs packages as it stands there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from packages_for_tests import build_package
from torch import nn

import im2im_zoo.engines
from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines import backends, open_engine
from im2im_zoo.engines.registry import engine_classes
from im2im_zoo.package import open_package
from im2im_zoo.runtime import open_network, predict_array

NAME = "im2im_zoo.engines.onnx_reference"


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "adding-an-engine.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def added(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file that the text shows, in the folder of the engines."""
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "onnx_reference.py").write_text(blocks(text)[0])
    monkeypatch.setattr(im2im_zoo.engines, "__path__", [*im2im_zoo.engines.__path__, str(folder)])
    engine_classes.cache_clear()
    yield
    sys.modules.pop(NAME, None)
    engine_classes.cache_clear()


class Integers(nn.Module):
    """Two convolutions whose sums of small integers are exact in float32, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(-3, 4, parameter.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.usefixtures("added")
def test_the_engine_of_the_text_predicts_a_package_in_tiles_to_the_last_bit(tmp_path: Path) -> None:
    root = build_package(tmp_path / "package", Integers(), weights=("onnx",), minimum=8, step=4, halo=2)
    image = xr.DataArray(np.random.default_rng(0).integers(0, 16, (40, 36), np.uint8), dims=("y", "x"))
    results = {}
    with open_package(root) as package:
        for backend in ("onnx", "onnxruntime"):
            engine = open_network(package, backend=backend).engine
            assert engine.backend == backend
            results[backend] = predict_array(
                package, image, engine=engine, tile={"y": 20, "x": 16}, halo="declared"
            )
    np.testing.assert_array_equal(results["onnx"].to_numpy(), results["onnxruntime"].to_numpy())
    assert len(np.unique(results["onnx"])) > 100


@pytest.mark.usefixtures("added")
def test_the_engine_of_the_text_is_the_last_choice_and_runs_on_a_cpu_only(tmp_path: Path) -> None:
    assert backends("onnx")[-1] == "onnx"
    assert "onnx" not in backends("onnx", "cuda")
    (tmp_path / "damaged.onnx").write_bytes(b"")
    with pytest.raises(PackageError, match="cannot be loaded: it is empty"):
        open_engine("onnx", tmp_path / "damaged.onnx", backend="onnx")


@pytest.mark.usefixtures("added")
@pytest.mark.filterwarnings("ignore")
def test_the_test_of_the_text_passes(text: str, tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks(text)[1], "test_onnx_reference", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 1
    assert callable(tests[0])
    tests[0](tmp_path)


def test_the_text_counts_its_lines(text: str) -> None:
    assert f"It has {len(blocks(text)[0].splitlines())} lines" in text
