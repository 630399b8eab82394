"""`edit` as scripts and people call it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from publishable import contents, copy_package, read_fields

if TYPE_CHECKING:
    from conftest import Cli


def test_it_prints_what_changed(cli: "Cli", tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model")
    done = cli(
        "edit",
        package,
        "--bump",
        "minor",
        "--change",
        "Better.",
        "--rename",
        "Nuclei of mice",
        "--tag",
        "mouse",
    )
    assert done.code == 0
    assert "version: 0.1.0 -> 0.2.0" in done.out
    assert "wrote README.md" in done.out
    assert "README.md still has the old name" in done.err
    assert read_fields(package)["name"] == "Nuclei of mice"
    done = cli("edit", package, "--version", "0.2.0", "--json")
    assert json.loads(done.out) == {
        "package": str(package),
        "outputs": [],
        "changed": {},
        "files": [],
        "notes": [],
    }
    assert "nothing was written" in cli("edit", package, "--version", "0.2.0").err


def test_wrong_usage_is_named(cli: "Cli", tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model")
    assert "at least one option" in cli("edit", package).err
    assert "choose one of major, minor, patch" in cli("edit", package, "--bump", "big").err
    assert "exclude each other" in cli("edit", package, "--bump", "minor", "--version", "1.0.0").err
    done = cli("edit", package, "--author", "Ada; orcid=12")
    assert done.code == 1
    assert 'give it as "Ada Lovelace; affiliation=' in done.err


def test_an_upgrade_prints_what_changed(cli: "Cli", tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model")
    written = read_fields(package)["format_version"]
    done = cli("upgrade", package, "-o", tmp_path / "new")
    assert done.code == 0
    assert f"format_version: {written} -> 0.5." in done.out
    assert read_fields(package)["format_version"] == written
    assert json.loads(cli("upgrade", tmp_path / "new", "--json").out)["outputs"] == []


def test_weights_are_added_with_consent_and_if_they_run_at_all_declared_sizes(
    cli: "Cli", tiny_run: Path, tmp_path: Path
) -> None:
    """The state dict of this network runs at sizes at which its ONNX form fails."""
    package = tmp_path / "model"
    assert cli("export", tiny_run, "--output", package, "--weights", "pytorch_state_dict").code == 0
    before = contents(package)
    done = cli("add-weights", package, "--format", "torchscript")
    assert done.code == 1
    assert "--allow-code" in done.err
    done = cli("add-weights", package, "--format", "onnx", "--allow-code")
    assert done.code == 1
    assert "--weights pytorch_state_dict --weights onnx" in done.err
    assert contents(package) == before
    done = cli("add-weights", package, "--format", "torchscript", "--allow-code", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["error"] < 1e-4
    assert list(read_fields(package)["weights"]) == ["pytorch_state_dict", "torchscript"]
