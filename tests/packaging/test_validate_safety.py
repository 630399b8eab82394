"""`validate_package` says of hostile files that they are so, without opening, running or following them."""

import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from im2im_zoo.core.hashing import sha256
from im2im_zoo.packaging import validate_package
from im2im_zoo.packaging.validation.page import validation_page


@pytest.fixture
def copy(folder_2d: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_2d, tmp_path / "package"))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put another file in place of one, with its hash in the RDF."""
    old = sha256(folder / name)
    (folder / name).write_bytes(content)
    rdf = folder / "rdf.yaml"
    rdf.write_text(rdf.read_text().replace(old, sha256(folder / name)))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))


class Writes(nn.Module):
    """TorchScript that makes a file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "canary")
        return x


def test_torchscript_that_writes_files_is_unsafe_and_the_other_formats_are_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    torch.jit.script(Writes()).save(str(tmp_path / "evil.pt"))
    replace(copy, "weights_torchscript.pt", (tmp_path / "evil.pt").read_bytes())
    report = validate_package(copy)
    assert [(f.code, f.field) for f in report.of("error")] == [("unsafe", "weights.torchscript")]
    assert set(report.measured["test_output"]) == {"onnx"}
    assert list((tmp_path / "here").iterdir()) == []


class Runs:
    """A pickle that makes a file when it is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("canary"),))


def test_a_pickle_that_is_no_state_dict_is_unsafe_without_and_with_consent(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    torch.save({"w": Runs()}, tmp_path / "evil.pt")
    replace(copy, "weights_state_dict.pt", (tmp_path / "evil.pt").read_bytes())
    found = [(f.code, f.field) for f in validate_package(copy).of("error")]
    assert found == [("unsafe", "weights.pytorch_state_dict")]
    found = [(f.code, f.field) for f in validate_package(copy, allow_code=True).of("error")]
    assert found == [("weights", "weights.pytorch_state_dict")]
    assert list((tmp_path / "here").iterdir()) == []


def test_a_test_tensor_with_a_hostile_header_is_unsafe_and_nothing_is_run(copy: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}".ljust(117) + b"\n"
    replace(copy, "test_input.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    report = validate_package(copy)
    assert [(f.code, f.field) for f in report.of("error")] == [("unsafe", "inputs[0].test_tensor")]
    assert "test_output" not in report.measured


def test_objects_in_a_test_tensor_are_not_unpickled(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.save(tmp_path / "o.npy", np.array([Runs()], dtype=object), allow_pickle=True)
    replace(copy, "test_output.npy", (tmp_path / "o.npy").read_bytes())
    report = validate_package(copy, pictures=True)
    assert [(f.code, f.field) for f in report.of("error")] == [("unsafe", "outputs[0].test_tensor")]
    assert list((tmp_path / "here").iterdir()) == []


def test_a_cover_of_a_huge_size_is_unsafe_and_not_decoded(copy: Path) -> None:
    content = bytearray((copy / "cover.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    replace(copy, "cover.png", bytes(content))
    report = validate_package(copy)
    assert ("unsafe", "covers[0]") in [(f.code, f.field) for f in report.of("error")]


@pytest.mark.parametrize("name", ["README.md", "weights.onnx", "test_input.npy"])
def test_a_link_out_of_a_folder_is_refused_and_not_read(copy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("secret")
    (copy / name).unlink()
    (copy / name).symlink_to(tmp_path / "outside")
    report = validate_package(copy, pictures=True)
    assert [f.code for f in report.of("error")] == ["refused"]
    assert "outside the package" in report.of("error")[0].message
    assert "secret" not in report.to_json() + validation_page(report)


def test_a_pipe_instead_of_a_file_is_refused_and_not_waited_for(copy: Path) -> None:
    import os

    (copy / "cover.png").unlink()
    os.mkfifo(copy / "cover.png")
    assert [(f.code, f.field) for f in validate_package(copy).of("error")] == [("refused", "covers[0]")]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "C:\\evil"])
def test_a_zip_that_leads_out_of_its_folder_is_a_report_and_writes_nothing(
    copy: Path, tmp_path: Path, name: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in copy.iterdir():
            archive.write(file, file.name)
        archive.writestr(zipfile.ZipInfo(name), "x")
    before = sorted(tmp_path.rglob("*"))
    report = validate_package(tmp_path / "a.zip")
    assert [f.code for f in report.findings] == ["open"]
    assert sorted(tmp_path.rglob("*")) == before


def test_custom_operations_are_named_and_not_run_and_keep_bioimageio_core_out_without_consent(
    copy: Path,
) -> None:
    (copy / "mine.py").write_text("raise RuntimeError('it ran')\n")

    def custom(rdf: dict[str, Any]) -> None:
        operation = {"id": "custom", "callable": "f", "source": "mine.py", "sha256": sha256(copy / "mine.py")}
        rdf["outputs"][0]["postprocessing"] = [{**operation, "kwargs": {}}]

    edit(copy, custom)
    report = validate_package(copy, core=True)
    assert report.core == ()
    assert report.sound
    (skipped,) = [f for f in report.findings if f.field == "outputs[0].postprocessing"]
    assert skipped.code == "skipped"
    assert "'f' of mine.py is Python code" in skipped.message
    assert set(report.measured["repeated"]) == {"onnx", "torchscript"}
    assert "it ran" not in report.to_json()
