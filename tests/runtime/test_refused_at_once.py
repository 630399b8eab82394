"""Options that no prediction can keep are refused before a package, an image or a network is opened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.package import Package
from im2im_zoo.runtime import Resources, predict
from im2im_zoo.runtime.inputs import Request
from im2im_zoo.runtime.predictor import open_package_model
from im2im_zoo.runtime.prepare import Networks


class OpenedError(Exception):
    """Something was opened that must not be."""


def fail(*_: object, **__: object) -> None:
    raise OpenedError


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads: int) -> None:
    with pytest.raises(PlanError, match=f"threads is {threads}; use at least 1"):
        Resources(threads=threads)


@pytest.mark.parametrize(
    ("output", "more"), [("out.png", {}), ("out.xyz", {}), ("out", {}), ("out.tif", {"output_1": "b.jpg"})]
)
def test_an_output_that_cannot_be_written_is_refused_before_the_image_is_opened(
    unet_2d: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, more: dict[str, str]
) -> None:
    monkeypatch.setattr(Request, "open", fail)
    with pytest.raises(ImageError, match=r"end the name in one of \.ome\.zarr"):
        predict(unet_2d, "no_such.tif", tmp_path / output, outputs=more)


@pytest.mark.parametrize("ending", [".tif", ".ome.zarr"])
def test_the_longest_names_of_outputs_are_written_and_longer_ones_refused_at_once(
    unet_2d: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    image = xr.DataArray(np.ones((60, 60), np.float32), dims=("y", "x"))
    longest = tmp_path / ("ü" * ((239 - len(ending)) // 2) + ending)
    assert predict(unet_2d, image, longest).output == longest
    monkeypatch.setattr(Request, "open", fail)
    with pytest.raises(ImageError, match=r"the name of this output has 2\d\d bytes; give one of at most 239"):
        predict(unet_2d, image, longest.with_name("ab" + longest.name))
    assert list(tmp_path.iterdir()) == [longest]


def test_too_little_memory_is_refused_before_the_network_is_loaded(
    unet_2d: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Networks, "open", fail)
    image = xr.DataArray(np.ones((60, 60), np.float32), dims=("y", "x"))
    for memory in ("1kB", "100MB"):
        with pytest.raises(PlanError, match=r"is not enough.*pass --memory with more than [\d.]+[MG]B"):
            predict(unet_2d, image, tmp_path / "out.tif", memory=memory)
        with pytest.raises(PlanError, match="is not enough"):
            open_package_model(unet_2d).plan(image, resources=Resources(memory=memory))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--threads", "0"], "threads is 0"), (["--workers", "0"], "workers is 0"), ([], "out.png")],
)
def test_the_command_opens_no_package_then(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    import im2im_zoo.package
    from im2im_zoo.cli import main

    monkeypatch.setattr(im2im_zoo.package, "open_package", fail)
    output: Any = tmp_path / ("out.tif" if options else "out.png")
    monkeypatch.setattr("sys.argv", ["im2im-zoo", "predict", "nuclei_2d", "in.tif", str(output), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
