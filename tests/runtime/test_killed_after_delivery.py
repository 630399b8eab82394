"""Killed after the output took its place and before its work folder went: the same command keeps the output."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from commands import Done, in_a_process
from groupings_for_tests import MakeGrouped

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict


def predict_and_kill(arguments: list[str]) -> None:
    """Predict; if asked to, die by SIGKILL before the work folder is removed after the output took its place."""
    package, image, output, kill, overwrite = arguments

    def hook(event: str, found: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(found[0]) == f"{output}.incomplete" and os.path.exists(output):  # noqa: PTH110
            os.kill(os.getpid(), signal.SIGKILL)

    if kill == "kill":
        sys.addaudithook(hook)
    try:
        tile = {"y": 48, "x": 48}
        done = predict(package, image, output, tile=tile, halo=16, overwrite=overwrite == "overwrite")
    except Im2ImError as error:
        sys.exit(str(error))
    print(json.dumps({"tiles": done.tiles, "resumed": done.resumed, "objects": done.objects}))  # noqa: T201


def run(package: Path, image: Path, output: Path, *, kill: bool = False, overwrite: bool = False) -> Done:
    words = ["kill" if kill else "no", "overwrite" if overwrite else "no"]
    return in_a_process(predict_and_kill, [*map(str, (package, image, output)), *words])


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
