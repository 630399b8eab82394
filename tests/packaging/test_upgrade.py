"""Upgrade of packages of formats 0.4 and 0.5: read and computed as before, in the newest format."""

from pathlib import Path
from typing import Any

import pytest
from bioimageio.spec.model.v0_5 import ModelDescr
from publishable import contents, copy_package, read_fields, write_fields

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import open_package
from im2im_zoo.packaging import Changes, edit_package, upgrade_package, validate_package
from im2im_zoo.packaging.consumers.programs import consumer_table

NEWEST = ModelDescr.implemented_format_version


def make_old(folder: Path, **fields: Any) -> Path:
    """A package of format 0.4 with the weights and test tensors of the packaged model."""
    package = copy_package(folder)
    new = read_fields(package)
    axes = {"axes": "bcyx", "data_range": ["-inf", "inf"]}
    kwargs = {"mode": "per_sample", "axes": "cyx", "min_percentile": 1.0, "max_percentile": 99.8, "eps": 1e-6}
    old = {
        **{key: new[key] for key in ("type", "authors", "maintainers", "license", "tags", "documentation", "covers", "cite")},
        "format_version": "0.4.9",
        "name": "Old model",
        "description": "Finds nuclei in fluorescence images.",
        "timestamp": "2022-01-01T00:00:00",
        "inputs": [
            {
                "name": "image", "data_type": "uint16", **axes,
                "shape": {"min": [1, 1, 192, 176], "step": [0, 0, 16, 16]},
                "preprocessing": [{"name": "scale_range", "kwargs": kwargs}],
            }
        ],
        "outputs": [
            {
                "name": "probability", "data_type": "float32", **axes,
                "shape": {"reference_tensor": "image", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "halo": [0, 0, 80, 80],
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "test_inputs": ["test_input.npy"],
        "test_outputs": ["test_output.npy"],
        "weights": {
            "onnx": {"source": "weights.onnx", "sha256": sha256(package / "weights.onnx"), "opset_version": 17},
        },
        "config": {"tool": {"tiny": 1e-6, "nothing": None}},
        **fields,
    }  # fmt: skip
    write_fields(package, old)
    return package


def test_an_old_package_computes_the_same_in_the_newest_format(tmp_path: Path) -> None:
    package = make_old(tmp_path / "model")
    with open_package(package) as before:
        description = before.description.model_dump(mode="json")
        assert consumer_table(before)
    upgraded = upgrade_package(package)
    assert (upgraded.old_version, upgraded.new_version) == ("0.4.9", NEWEST)
    assert upgraded.lost == ()
    assert upgraded.changed.keys() == {
        "format_version", "timestamp", "inputs", "outputs", "test_inputs", "test_outputs", "documentation", "covers",
    }  # fmt: skip
    with open_package(package) as after:
        assert after.raw["format_version"] == NEWEST
        assert after.raw["config"]["tool"] == {"tiny": 1e-6, "nothing": None}
        new = after.description.model_dump(mode="json")
    assert new["inputs"][0]["axes"] == description["inputs"][0]["axes"]
    assert new["outputs"][0]["postprocessing"] == description["outputs"][0]["postprocessing"]
    # The converter drops the hash of weights; it is kept.
    assert new["weights"]["onnx"]["sha256"] == sha256(package / "weights.onnx")
    report = validate_package(package, sizes=())
    assert not [f for f in report.findings if f.code in ("test_output", "hash", "unhashed")]
    assert report.sound


def test_only_the_version_and_the_form_of_file_names_change_in_a_package_of_format_0_5(
    tmp_path: Path,
) -> None:
    package = copy_package(tmp_path / "model")
    with open_package(package) as before:
        raw = dict(before.raw)
    upgrade_package(package)
    with open_package(package) as after:
        files = {"documentation": {"source": "README.md"}, "covers": [{"source": "cover.png"}]}
        assert after.raw == {**raw, **files, "format_version": NEWEST}
    assert upgrade_package(package).outputs == ()
    # An edit of the result writes the form of its format.
    edit_package(package, Changes(remove=("covers",)))
    edit_package(package, Changes(cover="validation.png"))
    assert read_fields(package)["covers"] == [{"source": "cover.png"}]


def test_what_the_newest_format_has_no_place_for_is_listed(tmp_path: Path) -> None:
    weights = {
        "onnx": {"source": "weights.onnx", "opset_version": 17, "attachments": {"files": ["recipe.yaml"]}}
    }
    package = make_old(tmp_path / "model", weights=weights)
    upgraded = upgrade_package(package, output=tmp_path / "new.zip")
    assert upgraded.lost == ("weights.onnx.attachments.files[0]: recipe.yaml",)
    assert read_fields(package)["format_version"] == "0.4.9"
    with open_package(tmp_path / "new.zip") as new:
        assert new.raw["format_version"] == NEWEST


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"license": "CC BY"}, "license"),
        ({"weights": {"onnx": {"source": "weights.onnx", "sha256": "0" * 64}}}, "the file was changed"),
        ({"format_version": "0.9.0"}, "format 0.9.0"),
    ],
)
def test_a_package_that_cannot_be_upgraded_stays(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    package = make_old(tmp_path / "model", **fields)
    before = contents(package)
    with pytest.raises(PackageError, match=reason):
        upgrade_package(package)
    assert contents(package) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
