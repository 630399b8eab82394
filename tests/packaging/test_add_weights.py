"""Weight formats that are added to a package from its own state dict."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from publishable import contents, read_fields, write_fields

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import open_package
from im2im_zoo.package.hashes import check_hashes
from im2im_zoo.packaging import Exported, add_weights, validate_package
from im2im_zoo.packaging.editing import add_weights as add_weights_module

CODE = """
from torch import nn

raise_when_imported = open({marker!r}, "w").close()

def build():
    return nn.Conv2d(1, 1, 3, padding=1)
"""


@pytest.fixture
def bare(packaged: Callable[[int, str], Exported], tmp_path: Path) -> Path:
    """A copy of the exported package with its state dict only."""
    folder = tmp_path / "model"
    shutil.copytree(packaged(2, "semantic").folder, folder)
    rdf = read_fields(folder)
    for name in ("onnx", "torchscript"):
        (folder / rdf["weights"].pop(name)["source"]).unlink()
    write_fields(folder, rdf)
    return folder


@pytest.mark.parametrize("weights_format", ["onnx", "torchscript"])
def test_an_added_format_gives_the_results_of_the_state_dict(bare: Path, weights_format: str) -> None:
    before = contents(bare)
    added = add_weights(bare, weights_format, allow_code=True)
    assert added.error < 1e-4
    assert added.test_error < 1e-4
    with open_package(bare) as package:
        assert set(package.formats()) == {weights_format, "pytorch_state_dict"}
        assert check_hashes(package) == []
        entry = package.raw["weights"][weights_format]
        image = np.random.default_rng(0).normal(size=(1, 1, 48, 64)).astype(np.float32)
        ours = package.open_engine(weights_format)([image])[0]
        theirs = package.open_engine("pytorch_state_dict", allow_code=True)([image])[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert entry["parent"] == "pytorch_state_dict"
    assert entry["sha256"] == sha256(bare / entry["source"])
    after = contents(bare)
    assert {k: v for k, v in after.items() if k in before and k != "rdf.yaml"} == {
        k: v for k, v in before.items() if k != "rdf.yaml"
    }
    report = validate_package(bare, weights=(weights_format,), sizes=())
    assert report.sound, report.findings
    with pytest.raises(PackageError, match=f"has {weights_format} weights already"):
        add_weights(bare, weights_format, allow_code=True)


def test_no_code_runs_without_consent(bare: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = CODE.format(marker=str(marker))
    (bare / "network.py").write_text(code, encoding="utf-8")
    rdf = read_fields(bare)
    rdf["weights"]["pytorch_state_dict"]["architecture"] = {
        "callable": "build", "source": "network.py", "sha256": sha256(bare / "network.py"), "kwargs": {},
    }  # fmt: skip
    write_fields(bare, rdf)
    before = contents(bare)
    with pytest.raises(PackageError, match="--allow-code") as refusal:
        add_weights(bare, "onnx")
    assert not marker.exists()
    assert ".partial-" not in str(refusal.value)
    with pytest.raises(PackageError, match="does not fit the network"):
        add_weights(bare, "onnx", allow_code=True)
    assert marker.exists()
    assert contents(bare) == before
    assert [p.name for p in bare.parent.iterdir() if p.name.startswith(".")] == []


def test_a_file_of_the_same_name_is_replaced_and_not_written_into(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its place, the copy shares its files with the original, which has to stay if a later step fails."""
    (bare / "weights.onnx").write_bytes(b"left over")
    with monkeypatch.context() as patch:
        patch.setattr(add_weights_module, "TOLERANCE", -1.0)
        with pytest.raises(PackageError, match="for the test input, onnx weights differ"):
            add_weights(bare, "onnx", allow_code=True)
    assert (bare / "weights.onnx").read_bytes() == b"left over"
    add_weights(bare, "onnx", allow_code=True)
    with open_package(bare) as package:
        assert package.formats() == ("onnx", "pytorch_state_dict")


def test_packages_without_a_state_dict_and_other_formats_are_refused(bare: Path) -> None:
    with pytest.raises(PackageError, match="choose onnx or torchscript"):
        add_weights(bare, "keras_v3")
    rdf = read_fields(bare)
    add_weights(bare, "onnx", allow_code=True)
    rdf = read_fields(bare)
    del rdf["weights"]["pytorch_state_dict"], rdf["weights"]["onnx"]["parent"]
    write_fields(bare, rdf)
    with pytest.raises(PackageError, match="no pytorch_state_dict weights to make others of; it has onnx"):
        add_weights(bare, "torchscript", allow_code=True)
