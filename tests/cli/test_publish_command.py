"""`publish` as scripts and people call it: dry run, consent, exit codes, and the Hugging Face Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from artifact_server import TOKEN, artifact_server
from hub_server import hub_server
from publishable import contents, copy_package

if TYPE_CHECKING:
    from conftest import Cli


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_package(tmp_path_factory.mktemp("publish") / "model")


def test_a_dry_run_lists_every_file_and_field_and_needs_no_token(complete: Path, cli: "Cli") -> None:
    done = cli("publish", complete, "--to", "bioimage.io", "--dry-run", "--json")
    assert done.code == 0
    listed = json.loads(done.out)
    assert listed["publishable"]
    sizes = {name: len(content) for name, content in contents(complete).items()}
    assert {f["name"]: f["bytes"] for f in listed["files"]} == sizes
    assert listed["fields"]["maintainers"][0]["name"] == "Ada Lovelace"


def test_a_dry_run_of_the_packaged_model_names_what_is_missing(cli: "Cli") -> None:
    done = cli("publish", "nuclei_2d", "--to", "bioimage.io", "--dry-run")
    assert done.code == 1
    assert 'im2im-zoo edit nuclei_2d --maintainer "NAME:GITHUB_USER"' in done.out
    assert "Nothing was sent" in done.err


def test_it_asks_before_it_sends_and_then_prints_the_address(
    complete: Path, cli: "Cli", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with artifact_server() as server:
        monkeypatch.setenv("BIOIMAGEIO_HYPHA_UPLOAD", server.address)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        done = cli("publish", complete, "--to", "bioimage.io", "--yes")
        assert done.code == 1
        assert "BIOIMAGEIO_HYPHA_UPLOAD_TOKEN" in done.err
        monkeypatch.setenv("BIOIMAGEIO_HYPHA_UPLOAD_TOKEN", TOKEN)
        done = cli("publish", complete, "--to", "bioimage.io")
        assert done.code == 2
        assert "--yes" in done.err
        assert server.asked == []
        server.fail = {"PUT cover.png": [500]}
        assert "has 1 of " in cli("publish", complete, "--to", "bioimage.io", "--yes").err
        done = cli("publish", complete, "--to", "bioimage.io", "--yes")
        assert done.code == 0
        assert "The draft bioimage-io/quick-ant-1 is published. A review was requested." in done.out
        assert TOKEN not in done.out + done.err
        assert "nothing was sent now" in cli("publish", complete, "--to", "bioimage.io", "--yes").out


def test_an_unknown_server_is_named(complete: Path, cli: "Cli") -> None:
    done = cli("publish", complete, "--to", "zenodo")
    assert done.code == 1
    assert "choose bioimage.io or huggingface" in done.err


def test_the_hub_needs_its_library(complete: Path, cli: "Cli", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = cli("publish", complete, "--to", "huggingface", "--repository", "ada/nuclei", "--yes")
    assert done.code == 1
    assert 'pip install "im2im_zoo[huggingface]"' in done.err


def test_the_hub_gets_the_package_as_a_pull_request_and_the_same_command_repairs_a_failure(
    complete: Path, tmp_path: Path
) -> None:
    """In processes of their own, since huggingface_hub reads its address when it is imported."""
    pytest.importorskip("huggingface_hub")
    with hub_server() as server:
        variables = {
            "HF_ENDPOINT": server.address,
            "HF_TOKEN": server.token,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
        }
        arguments = [
            "publish",
            complete,
            "--to",
            "huggingface",
            "--repository",
            "ada/tiny-nuclei",
            "--yes",
            "--json",
        ]

        def publish(**more: str) -> subprocess.CompletedProcess[str]:
            script = f"import sys; sys.path[:] = {sys.path}; from im2im_zoo.cli import main; main()"
            return subprocess.run(
                [sys.executable, "-c", script, *map(str, arguments)],
                env={**os.environ, **variables, **more}, capture_output=True, text=True, check=False,
            )  # fmt: skip

        done = publish(HF_TOKEN="hf_wrong")
        assert done.returncode == 1
        assert "with status 401: the token in HF_TOKEN is wrong" in done.stderr
        server.fail = {"commit": [413]}
        done = publish()
        assert done.returncode == 1
        assert "leave out a weight format" in done.stderr
        assert "The main branch of the repository is unchanged" in done.stderr
        assert "Traceback" not in done.stderr
        assert server.files == {}
        done = publish()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["address"] == f"{server.address}/ada/tiny-nuclei"
    weights = {name: content for name, content in server.files.items() if name.endswith(".onnx")}
    assert weights == {"package/weights.onnx": (complete / "weights.onnx").read_bytes()}
    assert server.tags == ["0.1.0"]
    assert server.pull_requests == 2  # one of the failed command
