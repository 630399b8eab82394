"""Options of every command: `--quiet`, `--log-file`, and errors as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from im2im_zoo.cli import messages
from im2im_zoo.cli.console import progress, time_left
from im2im_zoo.cli.global_options import GlobalOptions
from im2im_zoo.runtime.measure import cache, overlap, select_engine

Cli = Callable[..., Any]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.npy"
    np.save(path, np.random.default_rng(0).random((64, 64), np.float32))
    return path


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("show", "no_such", "--json"), "RecipeError", 1),
        (("show", "--json"), "UsageError", 2),
        (("predict", "no_such", "a.tif", "b.tif", "--halo", "-1", "--json"), "UsageError", 2),
    ],
)
def test_an_error_is_one_json_object_on_stdout_and_text_on_stderr(
    cli: Cli, arguments: tuple[str, ...], kind: str, code: int
) -> None:
    done = cli(*arguments)
    error = json.loads(done.out)["error"]
    assert (error["kind"], error["exit_code"], done.code) == (kind, code, code)
    assert error["message"] in done.err
    assert "Traceback" not in done.err


def test_help_and_results_are_as_without_json(cli: Cli) -> None:
    assert cli("show", "--help", "--json").code == 0
    assert json.loads(cli("show", "nuclei_2d", "--json").out)["kind"] == "recipe"


def test_messages_go_to_the_log_file_with_their_times_and_quiet_hides_them(
    cli: Cli, tiny_package: Path, image: Path, tmp_path: Path
) -> None:
    log, output = tmp_path / "log.txt", tmp_path / "out.npy"
    done = cli("predict", tiny_package, image, output, "--axes", "yx", "--quiet", "--log-file", log)
    assert (done.code, done.err, done.out) == (0, "", "")
    written = log.read_text(encoding="utf-8").splitlines()
    assert any("Done: " in line and "1 tile in" in line for line in written)
    assert all(line[:2] == "20" and line[4] == "-" for line in written)  # each begins with a date
    failed = cli("predict", tiny_package, image, output, "--dtype", "no_such", "--log-file", log)
    assert failed.code == 1
    assert "error: dtype: 'no_such'" in log.read_text(encoding="utf-8").splitlines()[-1]
    before = log.read_text(encoding="utf-8")
    assert cli("show", "nuclei_2d").code == 0
    assert log.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("place", ["", "--quiet", "folder/log.txt"])
def test_a_log_file_that_cannot_be_written_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("show", "nuclei_2d", "--log-file", *([place] if place else []))
    assert done.code == 1
    assert "--log-file" in done.err
    assert not list(tmp_path.iterdir())


def test_options_are_taken_from_any_place() -> None:
    given = GlobalOptions.of(["--quiet", "show", "--log-file=a.log", "x", "--json"])
    assert given == GlobalOptions(("show", "x", "--json"), quiet=True, log_file="a.log")
    assert given.json


def test_a_warning_is_printed_by_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with messages.quiet():
        messages.print_line("warning: look at this")
        messages.print_line("and not at this")
    messages.print_line("but at this again")
    assert capsys.readouterr().err == "warning: look at this\nbut at this again\n"


def test_a_long_work_without_a_terminal_prints_its_part_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("im2im_zoo.cli.console._SECONDS_BETWEEN_LINES", -1.0)
    with progress("Predicting", "voxels") as update:
        update(1, 4)
        update(3, 4, now="Finishing")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Predicting: 25%, about ")
    assert second.startswith("Finishing: 75%, about ")


def test_the_time_left_is_in_a_readable_unit() -> None:
    assert [time_left(s, 0.5) for s in (30, 600, 36000)] == [
        "about 30 s left",
        "about 10 min left",
        "about 10.0 h left",
    ]
    assert time_left(5, 0) == "time left unknown"


def test_a_first_use_says_what_is_measured_and_the_next_nothing(
    tiny_package: Path, image: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    for module in (select_engine, overlap):
        monkeypatch.setattr(
            module, "cache_file", lambda kind, key, _=None: cache.cache_file(kind, key, folder / kind)
        )
    np.save(image, np.zeros((300, 208), np.float32))
    tile = ("--axes", "yx", "--tile", "208", "--halo", "exact")
    first = cli("predict", tiny_package, image, tmp_path / "a.npy", *tile)
    assert first.code == 0, first
    assert "Measuring which is fastest on this computer (once per package): onnx by " in first.err
    assert "Measuring the halo that tiles need along y, x (once per package)" in first.err
    second = cli("predict", tiny_package, image, tmp_path / "b.npy", *tile)
    assert "Measuring" not in second.err
