"""A package none of whose weights can be run here is neither sound nor unsound: `validate` reports it as not checked."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from im2im_zoo.cli.validate import run
from im2im_zoo.core.hashing import sha256
from im2im_zoo.packaging import validate_package
from im2im_zoo.packaging.validation.page import validation_page

KERAS = {"keras_hdf5": {"source": "weights.h5", "tensorflow_version": "2.1"}}
JAVASCRIPT = {"tensorflow_js": {"source": "weights.h5", "tensorflow_version": "2.1"}}
Weights = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def with_weights(
    folder_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Weights], Path]:
    """A copy of the 2D package with other weights, where Keras is not installed."""
    monkeypatch.setitem(sys.modules, "keras", None)

    def make(change: Weights) -> Path:
        folder = Path(shutil.copytree(folder_2d, tmp_path / "package"))
        (folder / "weights.h5").write_bytes(b"weights of another library")
        rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
        rdf["weights"] = change(rdf["weights"])
        for entry in rdf["weights"].values():
            entry.pop("parent", None)
            if "://" not in entry["source"]:
                entry["sha256"] = sha256(folder / entry["source"])
        (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")
        return folder

    return make


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        (
            lambda w: KERAS,
            "keras_hdf5 needs keras, which is not installed",
            "pip install 'im2im_zoo[tensorflow]'",
        ),
        (lambda w: JAVASCRIPT, "there is no engine for tensorflow_js", "onnx or torchscript"),
        (lambda w: {"pytorch_state_dict": w["pytorch_state_dict"]}, "runs Python code", "--allow-code"),
        (
            lambda w: {"onnx": w["onnx"] | {"source": "https://example.com/w.onnx"}},
            "the file of its onnx weights is not in the package",
            "download the complete package",
        ),
    ],
    ids=["library", "engine", "consent", "address"],
)
def test_a_package_whose_weights_cannot_run_here_is_not_checked(
    with_weights: Callable[[Weights], Path], change: Weights, reason: str, remedy: str
) -> None:
    report = validate_package(with_weights(change), core=True)
    assert report.of("error") == ()
    assert (report.verdict, report.sound) == ("not checked", False)
    [found] = [f for f in report.findings if f.code == "weights_unchecked"]
    assert found.message.startswith("no weights could be run because ")
    assert reason in found.message
    assert remedy in found.message
    content = json.loads(report.to_json())
    assert (content["verdict"], content["sound"]) == ("not checked", False)
    assert "<strong>not checked</strong> no weights could be run because" in validation_page(report)


def test_the_command_reports_it_and_exits_with_a_code_of_its_own(
    with_weights: Callable[[Weights], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    folder = with_weights(lambda weights: KERAS)
    with pytest.raises(typer.Exit) as stop:
        run(str(folder), None, False, core=False)
    assert stop.value.exit_code == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "is not checked: no weights could be run because keras_hdf5 needs keras" in said


def test_a_package_with_an_error_is_not_sound_whether_or_not_its_weights_run(
    with_weights: Callable[[Weights], Path],
) -> None:
    folder = with_weights(lambda weights: KERAS)
    (folder / "README.md").unlink()
    report = validate_package(folder)
    assert {f.code for f in report.of("error")} == {"missing_file"}
    assert report.verdict == "not sound"


def test_weights_without_their_library_beside_others_are_a_remark(
    with_weights: Callable[[Weights], Path],
) -> None:
    report = validate_package(with_weights(lambda w: {"onnx": w["onnx"]} | KERAS))
    assert report.verdict == "sound"
    [found] = [f for f in report.findings if f.field == "weights.keras_hdf5"]
    assert (found.severity, found.code) == ("info", "not_run")
    assert "pip install" in found.message


def test_a_state_dict_whose_library_is_missing_is_not_checked(
    with_weights: Callable[[Weights], Path],
) -> None:
    architecture = {"callable": "Net", "import_from": "no_such_library", "kwargs": {}}
    folder = with_weights(
        lambda w: {"pytorch_state_dict": w["pytorch_state_dict"] | {"architecture": architecture}}
    )
    report = validate_package(folder, allow_code=True)
    assert report.of("error") == ()
    assert report.verdict == "not checked"
    assert "because pytorch_state_dict needs no_such_library" in report.unchecked


def test_only_the_asked_weights_count(with_weights: Callable[[Weights], Path]) -> None:
    report = validate_package(with_weights(lambda w: {"onnx": w["onnx"]} | KERAS), weights=["keras_hdf5"])
    assert report.verdict == "not checked"
