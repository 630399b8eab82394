"""Killed after the output took its place and before its work folder went: the same command keeps the output."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import MakeGrouped

from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package

SCRIPT = textwrap.dedent(
    """
    import json, os, sys
    from im2im_zoo.runtime import predict
    package, image, output, kill, overwrite = sys.argv[1:]

    def hook(event, args):
        if event == "shutil.rmtree" and str(args[0]).startswith(output + ".incomplete") and os.path.exists(output):
            os.kill(os.getpid(), 9)

    if kill == "kill":
        sys.addaudithook(hook)
    done = predict(package, image, output, tile={"y": 48, "x": 48}, halo=16, overwrite=overwrite == "overwrite")
    print(json.dumps({"tiles": done.tiles, "resumed": done.resumed, "objects": done.objects}))
    """
)


def run(package: Path, image: Path, output: Path, *, kill: bool = False, overwrite: bool = False):
    words = ["kill" if kill else "no", "overwrite" if overwrite else "no"]
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, (package, image, output)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).integers(0, 4000, (160, 130)).astype(np.uint16)
    return write_image(
        xr.DataArray(values, dims=("y", "x")), tmp_path_factory.mktemp("image") / "image.ome.zarr"
    )


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("ending", [".ome.zarr", ".tif"])
def test_the_same_command_keeps_the_output(
    unet_2d: Package, image: Path, tmp_path: Path, ending: str, overwrite: bool
) -> None:
    output = tmp_path / f"out{ending}"
    assert run(unet_2d.root, image, output, kill=True).returncode == -signal.SIGKILL
    before = open_image(output).to_numpy()
    assert before.any()
    again = run(unet_2d.root, image, output, overwrite=overwrite)
    assert again.returncode == 0, again.stderr
    counts = json.loads(again.stdout)
    assert counts["tiles"] == 0 < counts["resumed"]
    np.testing.assert_array_equal(open_image(output), before)
    assert not output.with_name(output.name + ".incomplete").exists()


def test_the_same_command_keeps_maps_labels_and_the_number_of_objects(
    make_grouped: MakeGrouped, image: Path, tmp_path: Path
) -> None:
    package, output = make_grouped().root, tmp_path / "out.ome.zarr"
    whole = json.loads(run(package, image, tmp_path / "whole.ome.zarr").stdout)
    assert run(package, image, output, kill=True).returncode == -signal.SIGKILL
    labels = open_image(output / "labels" / "instances").to_numpy()
    again = run(package, image, output, overwrite=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["objects"] == whole["objects"] == labels.max() > 0
    np.testing.assert_array_equal(open_image(output / "labels" / "instances"), labels)
    assert not output.with_name(output.name + ".incomplete").exists()


def test_a_partial_output_that_is_missing_is_not_taken_for_finished(
    unet_2d: Package, image: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.ome.zarr"
    assert run(unet_2d.root, image, output, kill=True).returncode == -signal.SIGKILL
    lost = output.rename(tmp_path / "elsewhere.ome.zarr")
    again = run(unet_2d.root, image, output)
    assert again.returncode == 1
    assert "the partial output is missing" in again.stderr
    assert not output.exists()
    assert lost.exists()
