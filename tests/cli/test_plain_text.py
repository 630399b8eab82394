"""Names in packages, recipes and files cannot control the terminal that they are printed on."""

import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import yaml
from packages_for_tests import build_package, small_unet

from im2im_zoo.cli.plain_text import PlainStream, plain_text

if TYPE_CHECKING:
    from conftest import Cli

# Clears the screen; sets the title, by an 8-bit control; rings; goes back; reverses the text.
HOSTILE = "evil\x1b[2J\x9d0;title\x07\r\x7f\u202egpj"
FORBIDDEN = ("\x1b", "\x9d", "\x07", "\r", "\x7f", "\u202e")


def assert_plain(*texts: str) -> None:
    for text in texts:
        assert not [c for c in FORBIDDEN if c in text], repr(text)


def hostile_package(folder: Path) -> Path:
    build_package(folder, small_unet(levels=1), weights=("torchscript",))
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["description"] = f"A model. {HOSTILE}"
    rdf["authors"] = [{"name": f"Somebody {HOSTILE}"}]
    rdf["outputs"][0]["description"] = HOSTILE
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, allow_unicode=False))
    return folder


def test_control_characters_are_written_out_and_all_other_text_is_kept() -> None:
    assert plain_text("a\tb\nµm 日本 é") == "a\tb\nµm 日本 é"
    assert plain_text("a\x1b[31m\x9b\u202e\u2066\udcff") == "a\\x1b[31m\\x9b\\u202e\\u2066\\udcff"
    assert_plain(plain_text(HOSTILE))


def test_a_stream_writes_control_characters_out() -> None:
    inner = io.StringIO()
    stream = PlainStream.around(inner)
    print(HOSTILE, file=stream)
    stream.writelines([HOSTILE])
    assert PlainStream.around(stream) is stream
    assert_plain(inner.getvalue())
    assert "evil\\x1b[2J" in inner.getvalue()


def test_help_that_is_not_printed_to_a_terminal_is_text() -> None:
    # The library that prints it asks streams whether they take bytes.
    done = subprocess.run([sys.executable, "-m", "im2im_zoo", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.lstrip().startswith("Usage: ")


@pytest.mark.parametrize("command", ["show", "validate"])
def test_the_texts_of_a_package_are_printed_plainly(cli: "Cli", tmp_path: Path, command: str) -> None:
    done = cli(command, hostile_package(tmp_path / "package"))
    assert_plain(done.out, done.err)


def test_names_of_files_in_errors_and_findings_are_printed_plainly(cli: "Cli", tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for kind in ("images", "targets"):
        (folder / kind).mkdir(parents=True)
        tifffile.imwrite(folder / kind / f"{HOSTILE}.tif", np.zeros((64, 64), np.uint8))
    for arguments in (
        ("data", "check", folder),
        ("show", tmp_path / HOSTILE),
        ("train", "nuclei_2d", "--output", tmp_path / "run", f"--data.path={tmp_path / HOSTILE}"),
        ("train", "nuclei_2d", "--output", tmp_path / "run", f"--network.callable=torch.nn.{HOSTILE}"),
        ("predict", "nuclei_2d", tmp_path / f"{HOSTILE}.tif", tmp_path / "out.tif"),
        (HOSTILE,),
    ):
        done = cli(*arguments)
        assert "evil" in done.out + done.err
        assert_plain(done.out, done.err)


def test_the_first_process_and_its_unexpected_errors_print_plainly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "im2im_zoo", "--debug", "show", str(tmp_path / HOSTILE)],
        capture_output=True,
        check=False,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "evil\\x1b[2J" in done.stderr
    assert_plain(done.stdout, done.stderr)
