"""Two runs that write one output: exactly one runs, and the other is refused, also with --restart and --overwrite."""

import json
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from commands import Done, in_a_process

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.execute.run_lock import hold_output
from im2im_zoo.runtime.execute.work_folder import work_folder

REFUSED = r"another run \(process \d+ on .+\) is writing this output"


def predict_slowly(arguments: list[str]) -> None:
    """Predict from a given time on, with a pause after each tile, after the first one until a file is there."""
    asked = json.loads(arguments[0])
    start, pause, reached = asked.pop("start"), asked.pop("pause"), asked.pop("reached", None)
    go_on = Path(asked.pop("go_on", ""))

    def progress(stage: str, done: int, total: int) -> None:
        if reached and stage == "tiles" and done:
            Path(reached).touch()
            while not go_on.exists():
                time.sleep(0.02)
        time.sleep(pause)

    time.sleep(max(0.0, start - time.time()))
    try:
        result = predict(**asked, threads=1, progress=progress)
    except PlanError as error:
        print(json.dumps({"refused": str(error)}))  # noqa: T201 the tests read it
    else:
        print(json.dumps({"tiles": result.tiles, "complete": result.already_complete}))  # noqa: T201


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).integers(0, 4000, (150, 150)).astype(np.uint16)
    return write_image(
        xr.DataArray(values, dims=("y", "x")), tmp_path_factory.mktemp("image") / "image.ome.zarr"
    )


@pytest.fixture
def common(unet_2d: Package, source: Path) -> dict[str, Any]:
    return {
        "package": str(unet_2d.root),
        "image": str(source),
        "tile": {"y": 60, "x": 60},
        "halo": 16,
        "weights": "torchscript",
    }


def started(pool: ThreadPoolExecutor, **arguments: object) -> "Future[Done]":
    return pool.submit(in_a_process, predict_slowly, [json.dumps(arguments)])


def test_of_two_that_start_together_one_runs(common: dict[str, Any], tmp_path: Path) -> None:
    predict(**common, output=tmp_path / "whole.ome.zarr", threads=1)
    expected = open_image(tmp_path / "whole.ome.zarr").to_numpy()
    for number in range(4):
        output = tmp_path / f"{number}.ome.zarr"
        with ThreadPoolExecutor(2) as pool:
            given = {
                "output": str(output),
                "start": time.time() + 0.3,
                "pause": 0.02,
            }
            pair = [started(pool, **common, **given) for _ in range(2)]
        ends = [f.result() for f in pair]
        assert all(e.returncode == 0 for e in ends), [e.stderr for e in ends]
        found = [json.loads(e.stdout) for e in ends]
        assert sorted(f.get("tiles", 0) for f in found)[0] == 0 < max(f.get("tiles", 0) for f in found)
        [other] = [f for f in found if not f.get("tiles")]
        assert "another run (process " in other.get("refused", "") or other.get("complete"), other
        np.testing.assert_array_equal(open_image(output), expected)
        assert not work_folder(output).exists()
        assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize(("option", "ending"), [("restart", ".ome.zarr"), ("overwrite", ".tif")])
def test_a_run_is_not_disturbed_by_one_that_would_replace_it(
    common: dict[str, Any], tmp_path: Path, option: str, ending: str
) -> None:
    output, reached, go_on = tmp_path / f"out{ending}", tmp_path / "reached", tmp_path / "go_on"
    predict(**common, output=tmp_path / f"whole{ending}", threads=1)
    with ThreadPoolExecutor(1) as pool:
        files = {"reached": str(reached), "go_on": str(go_on)}
        first = started(pool, **common, **files, output=str(output), start=0, pause=0)
        try:
            while not (reached.exists() or first.done()):
                time.sleep(0.02)
            with pytest.raises(PlanError, match=REFUSED):
                predict(**common, output=output, **{option: True})
        finally:
            go_on.touch()
    assert json.loads(first.result().stdout)["tiles"] > 0, first.result().stderr
    np.testing.assert_array_equal(open_image(output), open_image(tmp_path / f"whole{ending}"))


def test_a_lock_is_held_by_one_at_a_time_although_its_file_comes_and_goes(tmp_path: Path) -> None:
    work, inside, most, refused = tmp_path / "out.tif.incomplete", 0, 0, 0
    counting = threading.Lock()

    def hold() -> None:
        nonlocal inside, most, refused
        for _ in range(100):
            try:
                with hold_output(work):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0)
                    with counting:
                        inside -= 1
            except PlanError:
                refused += 1

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 600
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "out.tif.incomplete.lock").write_text("process 1 on elsewhere")
    with hold_output(tmp_path / "out.tif.incomplete"):
        assert f"process {os.getpid()} on" in (tmp_path / "out.tif.incomplete.lock").read_text()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_another_run_is_not_removed_where_somebody_removed_our_own(tmp_path: Path) -> None:
    path = tmp_path / "out.tif.incomplete.lock"
    with hold_output(tmp_path / "out.tif.incomplete"):
        path.unlink()
        path.write_text("of another run")
    assert path.read_text() == "of another run"


def test_folders_that_the_lock_created_are_removed_unless_they_are_used(tmp_path: Path) -> None:
    with hold_output(tmp_path / "a" / "b" / "out.tif.incomplete"):
        (tmp_path / "a" / "mine").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "mine"]


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="the folder stays writable")
def test_a_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(ImageError, match="choose another folder"),
            hold_output(tmp_path / "o.tif.incomplete"),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)
