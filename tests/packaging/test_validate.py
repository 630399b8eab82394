"""`validate_package` finds what was done to a package, as a folder, a zip and an rdf.yaml."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from im2im_zoo.core.hashing import sha256
from im2im_zoo.packaging import Exported, validate_package


@pytest.fixture
def copy(folder_2d: Path, tmp_path: Path) -> Path:
    """A package that a test may spoil."""
    return Path(shutil.copytree(folder_2d, tmp_path / "package"))


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the RDF."""
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    change(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")


def rehash(folder: Path) -> None:
    """Give the RDF the hashes of the files as they are."""

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "source" in node and "sha256" in node:
                node["sha256"] = sha256(folder / node["source"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    edit(folder, walk)


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


FORMS = [lambda folder: folder, zipped, lambda folder: folder / "rdf.yaml"]


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip", "rdf"])
def test_a_sound_package_is_sound_in_every_form(copy: Path, form: Callable[[Path], Path]) -> None:
    report = validate_package(form(copy))
    assert report.sound
    assert report.of("warning") == ()
    content = json.loads(report.to_json())
    assert content["sound"] is True
    assert content["measured"]["test_output"]["onnx"]["result"]["mismatched_per_million"] == 0


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip", "rdf"])
def test_altered_weights_are_found_and_not_run(copy: Path, form: Callable[[Path], Path]) -> None:
    content = bytearray((copy / "weights.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "weights.onnx").write_bytes(content)
    report = validate_package(form(copy))
    assert not report.sound
    assert [(f.code, f.field) for f in report.of("error")] == [("hash", "weights.onnx")]
    assert "test_output" not in report.measured


def test_an_altered_test_tensor_is_found_by_its_hash(copy: Path) -> None:
    array = np.load(copy / "test_output.npy")
    np.save(copy / "test_output.npy", array * 0.9)
    assert [(f.code, f.field) for f in validate_package(copy).of("error")] == [
        ("hash", "outputs[0].test_tensor")
    ]


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip", "rdf"])
def test_an_output_that_the_weights_do_not_give_is_found_in_each_format(
    copy: Path, form: Callable[[Path], Path]
) -> None:
    np.save(copy / "test_output.npy", np.load(copy / "test_output.npy") * np.float32(0.9))
    rehash(copy)
    errors = validate_package(form(copy)).of("error")
    assert {(f.code, f.field) for f in errors} == {
        ("test_output", "weights.onnx"),
        ("test_output", "weights.torchscript"),
    }
    assert all("largest difference 0.0" in f.message for f in errors)


def test_formats_that_are_different_networks_are_told_apart(
    copy: Path, packaged: Callable[[int, str], Exported]
) -> None:
    import onnx

    model = onnx.load(str(copy / "weights.onnx"))
    weight = next(i for i in model.graph.initializer if len(i.dims) == 4)
    array = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, str(copy / "weights.onnx"))
    rehash(copy)
    codes = {(f.code, f.field) for f in validate_package(copy).of("error")}
    assert ("test_output", "weights.onnx") in codes
    assert ("formats_differ", "weights.torchscript") in codes


@pytest.mark.parametrize("name", ["test_input.npy", "cover.png", "README.md", "weights_torchscript.pt"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    errors = validate_package(copy).of("error")
    assert [f.code for f in errors] == ["missing_file"]
    assert name in errors[0].message


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip", "rdf"])
def test_broken_yaml_is_an_error_not_a_crash(copy: Path, form: Callable[[Path], Path]) -> None:
    (copy / "rdf.yaml").write_text("type: model\nformat_version: [")
    report = validate_package(form(copy))
    assert not report.sound
    assert "rdf.yaml is not YAML" in report.findings[0].message


def test_nothing_at_the_path_is_an_error_not_a_crash(tmp_path: Path) -> None:
    report = validate_package(tmp_path / "nothing")
    assert [f.code for f in report.findings] == ["open"]


def test_an_invalid_field_is_named(copy: Path) -> None:
    edit(copy, lambda rdf: rdf["outputs"][0]["axes"][2].update(halo=100))
    report = validate_package(copy)
    assert not report.sound
    assert "too small for halo 100" in report.findings[0].message


def test_a_size_that_the_network_does_not_take_is_found(copy: Path) -> None:
    def odd(rdf: dict) -> None:
        for axis in rdf["inputs"][0]["axes"][2:]:
            axis["size"] = {"min": axis["size"]["min"], "step": 1}

    edit(copy, odd)
    errors = validate_package(copy).of("error")
    assert {f.code for f in errors} == {"size"}
    assert "voxels along y; by the RDF it is" in errors[0].message


def test_state_dict_is_skipped_without_consent_and_run_with_it(copy: Path) -> None:
    skipped = validate_package(copy)
    assert [(f.severity, f.code, f.field) for f in skipped.findings] == [
        ("info", "skipped", "weights.pytorch_state_dict")
    ]
    assert "--allow-code" in skipped.findings[0].message
    assert any("is a plain state dict" in n.message for n in skipped.notes)
    assert validate_package(copy, allow_code=True).findings == ()


def test_only_the_asked_formats_are_run(copy: Path) -> None:
    assert set(validate_package(copy, weights=["onnx"]).measured["test_output"]) == {"onnx"}
    report = validate_package(copy, weights=["keras_hdf5"])
    assert "it has onnx, torchscript, pytorch_state_dict" in report.of("error")[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda rdf: rdf.pop("authors"), "authors"),
        (lambda rdf: rdf["authors"][0].pop("github_user"), "maintainers"),
        (lambda rdf: rdf.update(description="A model."), "description"),
        (lambda rdf: rdf["weights"]["onnx"].pop("sha256"), "unhashed"),
        (lambda rdf: rdf.pop("cite"), "cite"),
        (lambda rdf: rdf.pop("license"), "license"),
        (lambda rdf: rdf.pop("covers"), "cover"),
        (lambda rdf: rdf.pop("documentation"), "documentation"),
        (lambda rdf: rdf.pop("tags"), "tags"),
        (lambda rdf: rdf["tags"].remove("2d"), "tags"),
    ],
)
def test_metadata_that_is_missing_is_a_warning(copy: Path, change: Callable[[dict], None], code: str) -> None:
    edit(copy, change)
    report = validate_package(copy)
    assert report.sound
    assert {f.code for f in report.of("warning")} == {code}


def test_a_licence_that_restricts_use_is_a_remark(copy: Path) -> None:
    edit(copy, lambda rdf: rdf.update(license="CC-BY-NC-4.0"))
    found = [f for f in validate_package(copy).of("info") if f.code == "license"]
    assert "does not allow commercial use" in found[0].message


def test_a_cover_that_is_no_picture_is_an_error_of_the_cover(copy: Path) -> None:
    (copy / "cover.png").write_bytes(b"no picture")
    rehash(copy)
    errors = validate_package(copy).of("error")
    assert {f.code for f in errors} <= {"cover", "format"}
    assert [f.field for f in errors if f.code == "cover"] == ["covers[0]"]


def test_documentation_without_validation_and_a_cover_of_another_shape_are_warnings(copy: Path) -> None:
    from PIL import Image

    (copy / "README.md").write_text("# Model\n")
    Image.new("RGB", (300, 200)).save(copy / "cover.png")
    rehash(copy)
    warnings = {f.code: f.message for f in validate_package(copy).of("warning")}
    assert "has no heading `## Validation`" in warnings["documentation"]
    assert "300 x 200" in warnings["cover"]


def test_nothing_is_left_in_the_temporary_folder(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(copy, lambda rdf: rdf.pop("covers"))  # bioimageio.spec draws one then
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert "cover" in {f.code for f in validate_package(copy).findings}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("field", ["weights", "documentation", "test_tensor"])
def test_a_file_outside_the_package_is_an_error_and_not_read(copy: Path, field: str) -> None:
    outside = copy.parent / "outside.txt"
    outside.write_text("secret")

    def point_outside(rdf: dict) -> None:
        entry = {"weights": rdf["weights"]["onnx"], "test_tensor": rdf["inputs"][0]["test_tensor"]}.get(field)
        if entry is None:
            rdf["documentation"] = {"source": "../outside.txt", "sha256": sha256(outside)}
        else:
            entry.update(source="../outside.txt", sha256=sha256(outside))

    edit(copy, point_outside)
    report = validate_package(copy)
    assert not report.sound
    assert "secret" not in report.to_json()
