"""Predictions that are stopped, by anything, go on where they were and give what an unbroken run gives."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from commands import Done, in_a_process
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime import Resources, Settings, plan_prediction, predict
from im2im_zoo.runtime.execute.checkpoint import StatisticsLimits
from im2im_zoo.runtime.execute.executors import InProcess
from im2im_zoo.runtime.execute.prediction_run import PredictionRun
from im2im_zoo.runtime.execute.run_lock import hold_output
from im2im_zoo.runtime.execute.work_folder import find_unfinished, work_folder
from im2im_zoo.runtime.layout.mapping import map_axes
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.prepare import Networks, prepare

TILE = {"y": 60, "x": 60}


def predict_and_stop(arguments: list[str]) -> None:
    """Predict, and send this process a signal after some reports of progress."""
    asked = json.loads(arguments[0])
    stop_after, by = asked.pop("stop_after", None), asked.pop("by", "SIGKILL")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if stop_after is not None and seen > stop_after:
            os.kill(os.getpid(), getattr(signal, by))

    result = predict(**asked, threads=1, progress=progress)
    print(json.dumps({"tiles": result.tiles, "resumed": result.resumed}))  # noqa: T201 what the tests read


# A process that starts from nothing, for what starts processes itself.
SCRIPT = textwrap.dedent(
    """
    import itertools, json, os, signal, sys
    from im2im_zoo.runtime import predict

    stop_after, seen = int(sys.argv[2]) if len(sys.argv) > 2 else None, itertools.count(1)

    def progress(*_):
        if next(seen) == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        predict(**json.loads(sys.argv[1]), threads=1, progress=progress)
    """
)


def plain(arguments: dict[str, object]) -> str:
    return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()})


def run(**arguments: object) -> Done:
    return in_a_process(predict_and_stop, [plain(arguments)])


def script_with(folder: Path, **arguments: object) -> list[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return [sys.executable, "-W", "ignore", str(script), plain(arguments)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei_2d) -> Path:
    """Two frames of real nuclei."""
    values = np.stack([nuclei_2d[0][:230, :250], nuclei_2d[0][230:460, :250]])
    return write_image(
        xr.DataArray(values, dims=("time", "y", "x")), tmp_path_factory.mktemp("image") / "image.ome.zarr"
    )


def bytes_of(path: Path) -> dict[str, bytes]:
    """All files of an output but for the metadata, where the plan is (memory is measured anew)."""
    if path.is_file():
        return {"": open_image(path, axes="tyx" if path.suffix == ".npy" else None).values.tobytes()}
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p != path / "zarr.json"]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.mark.parametrize(
    ("which", "ending"),
    [
        ("unet_2d", ".ome.zarr"),
        ("stretched", ".ome.tif"),
        pytest.param("stretched", ".ome.zarr", marks=pytest.mark.slow),
        pytest.param("unet_2d", ".npy", marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again_it_ends_bit_for_bit_as_an_unbroken_run(
    request, image, tmp_path, which, ending
):
    package: Package = request.getfixturevalue(which)
    common = {"package": package.root, "image": image, "tile": TILE, "halo": 16, "weights": "torchscript"}
    unbroken, broken = tmp_path / f"unbroken{ending}", tmp_path / f"broken{ending}"
    assert run(**common, output=unbroken).returncode == 0
    kills = 0
    for after in (9, 14, 40, 70, None):
        done = run(**common, output=broken, stop_after=after)
        if done.returncode == 0:
            break
        kills += 1
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not broken.exists()
        assert find_unfinished(broken) == work_folder(broken)
    assert kills >= 2
    assert bytes_of(broken) == bytes_of(unbroken)
    assert not work_folder(broken).exists()


def test_what_is_done_is_not_done_again(unet_2d, image, tmp_path):
    common = {
        "package": unet_2d.root,
        "image": image,
        "tile": TILE,
        "halo": 16,
        "output": tmp_path / "out.tif",
    }
    stopped = run(**common, stop_after=31, by="SIGTERM")
    assert stopped.returncode != 0
    # The records of the last two seconds may be lost by SIGTERM, which this script does not handle.
    log = work_folder(tmp_path / "out.tif") / "done.jsonl"
    written = log.read_text().count("tiles")
    again = json.loads(run(**common).stdout)
    assert again["resumed"] == written
    plan = plan_prediction(unet_2d, open_image(image), tile=TILE, halo=16)
    assert again["tiles"] + again["resumed"] == len(plan)


def test_ctrl_c_keeps_what_is_done_and_shows_nothing_that_looks_finished(unet_2d, image, tmp_path):
    output = tmp_path / "out.ome.zarr"
    common = {"package": unet_2d.root, "image": image, "tile": TILE, "halo": 16, "output": output}
    stopped = run(**common, stop_after=20, by="SIGINT")
    assert stopped.returncode != 0
    assert not output.exists()
    assert (work_folder(output) / "done.jsonl").read_text().count("tiles") >= 15
    again = json.loads(run(**common).stdout)
    assert again["resumed"] >= 15


def test_stopped_before_the_first_tile_nothing_is_left(unet_2d, image, tmp_path):
    output = tmp_path / "out.ome.zarr"
    common = {"package": unet_2d.root, "image": image, "tile": TILE, "halo": 16, "output": output}
    run(**common, stop_after=0, by="SIGINT")
    assert not work_folder(output).exists()


@pytest.fixture
def percentiles(folder: Path) -> Package:
    """Stretched between percentiles, which are counted over the whole image first."""
    stretch = spec.ScaleRangeDescr(
        kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], min_percentile=1, max_percentile=99)
    )
    return open_package(
        build_package(folder / "percentiles_and_stopped", small_unet(levels=2), preprocessing=[stretch])
    )


@pytest.mark.parametrize("which", ["unet_2d", "percentiles"])
def test_stopped_while_statistics_are_taken_it_goes_on_with_what_was_counted(request, tmp_path, which):
    values = np.random.default_rng(0).gamma(2, 200, (600, 700)).astype(np.float32)
    source = write_image(xr.DataArray(values, dims=("y", "x")), tmp_path / "image.ome.zarr")
    package: Package = request.getfixturevalue(which)
    settings = Settings(tile={"y": 256, "x": 256}, halo=16, weights="torchscript")
    images = {str(package.inputs[0].id): open_image(source)}
    output = tmp_path / "out.npy"
    seen: list[float] = []

    def predicted(to: Path, stop: float | None = None) -> None:
        seen.clear()

        def progress(stage: str, done: int, total: int) -> None:
            if stage == "statistics":
                seen.append(done / total)
                if stop is not None and seen[-1] > stop:
                    raise KeyboardInterrupt

        often = StatisticsLimits(block_bytes=2**20, interval_s=0.0, writing=1e9)
        run = PredictionRun(package, images, [to], settings, work_folder(to), InProcess(), limits=often)
        with run.open() as ledger:
            decisions = None if ledger is None else ledger.decisions
            layout = map_axes(package, images)
            prepared = prepare(Networks(package), images, layout, settings, Resources(), decisions=decisions)
            run.run_tiles(prepared, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        predicted(output, stop=0.6)
    assert not output.exists()
    predicted(output)
    # The first is one voxel, which tells the type.
    assert max(seen[:3]) > 0.3
    assert seen[-1] == 1
    predicted(tmp_path / "unbroken.npy")
    assert max(seen[:3]) < 0.3
    np.testing.assert_array_equal(np.load(output), np.load(tmp_path / "unbroken.npy"))


@pytest.fixture
def stopped(unet_2d, image, tmp_path) -> dict[str, object]:
    """The arguments of a prediction that was killed on its way."""
    common = {
        "package": unet_2d.root,
        "image": image,
        "tile": TILE,
        "halo": 16,
        "output": tmp_path / "out.ome.zarr",
        "weights": "torchscript",
    }
    assert run(**common, stop_after=25, by="SIGINT").returncode != 0
    assert find_unfinished(tmp_path / "out.ome.zarr")
    return common


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"halo": 20}, "settings.halo: it was 16, now it is 20"),
        ({"tile": {"y": 64, "x": 60}}, "settings.tile.y: it was 60, now it is 64"),
        ({"dtype": "uint8"}, "settings.dtype"),
        ({"weights": "onnx"}, "settings.weights"),
    ],
)
def test_other_settings_are_refused_rather_than_mixed_in(stopped, change, named):
    with pytest.raises(PlanError, match=named) as refused:
        predict(**(stopped | change))
    assert "--restart" in str(refused.value)
    assert find_unfinished(Path(str(stopped["output"])))


def test_another_image_or_package_is_refused(stopped, image, unet_2d, folder, tmp_path):
    values = open_image(image).values.copy()
    values[0, 3, 5] += 1
    other = write_image(xr.DataArray(values, dims=("time", "y", "x")), tmp_path / "other.ome.zarr")
    with pytest.raises(PlanError, match=r"images\.raw"):
        predict(**(stopped | {"image": other}))
    path = build_package(folder / "another", small_unet(levels=2), weights=("torchscript",))
    with pytest.raises(PlanError, match="package"):
        predict(**(stopped | {"package": path}))


def test_the_same_file_with_other_voxels_is_refused(unet_2d, tmp_path, nuclei_2d):
    image = tmp_path / "image.tif"
    write_image(xr.DataArray(nuclei_2d[0][:230, :250], dims=("y", "x")), image)
    common = {
        "package": unet_2d.root,
        "image": image,
        "tile": TILE,
        "halo": 16,
        "output": tmp_path / "out.tif",
    }
    assert run(**common, stop_after=12, by="SIGINT").returncode != 0
    write_image(xr.DataArray(nuclei_2d[0][1:231, :250], dims=("y", "x")), image, overwrite=True)
    with pytest.raises(PlanError, match=r"modified|voxels"):
        predict(**common)
    assert predict(**common, restart=True).resumed == 0


def test_the_memory_that_just_sufficed_suffices_again(stopped, unet_2d):
    """The process may be larger now than when the tiles were chosen; that is no reason not to go on."""
    ledger = work_folder(stopped["output"]) / "ledger.json"
    content = json.loads(ledger.read_text())
    cost = Cost(**content["decisions"]["cost"])
    plan = plan_prediction(
        unet_2d,
        open_image(stopped["image"]),
        cost=cost,
        tile=TILE,
        halo=16,
        memory=2**40,
        weights="torchscript",
    )
    result = predict(**stopped, memory=plan.memory.total)
    assert result.resumed > 0
    assert result.plan.cost == cost


def test_restart_throws_away_what_was_done(stopped):
    result = predict(**(stopped | {"halo": 20}), restart=True)
    assert result.resumed == 0
    assert result.output.exists()


def test_two_runs_do_not_write_to_one_output(stopped):
    with (
        hold_output(work_folder(Path(str(stopped["output"])))),
        pytest.raises(PlanError, match=f"process {os.getpid()}"),
    ):
        predict(**stopped)
    assert predict(**stopped).resumed > 0


def test_a_folder_that_is_no_unfinished_prediction_is_not_removed(unet_2d, image, tmp_path):
    folder = work_folder(tmp_path / "out.tif")
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(ImageError, match="is not a resumable prediction"):
        predict(unet_2d, image, tmp_path / "out.tif")
    assert (folder / "precious.txt").exists()


@pytest.mark.slow
def test_killed_at_random_with_workers_it_still_ends_the_same(stretched, image, tmp_path):
    common = {"package": stretched.root, "image": image, "tile": TILE, "halo": 16, "weights": "torchscript"}
    one, two = tmp_path / "one.ome.zarr", tmp_path / "two.ome.zarr"
    predict(**common, output=one, threads=1)
    command = script_with(tmp_path, **common, output=two, workers=2)
    dice = random.Random(0)
    kills = 0
    for _ in range(2):
        # Of 112 tiles: the first two never come to the end, however fast the machine is.
        stop_after = dice.randint(5, 50)
        killed = subprocess.run([*command, str(stop_after)], check=False, timeout=300)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
        assert not two.exists()
        kills += 1
        time.sleep(0.5)  # its workers end
    else:
        subprocess.run(command, check=True, timeout=300)
    assert kills == 2
    assert bytes_of(one) == bytes_of(two)
