"""A package states the metrics that its users get: they are those of `predict` and `evaluate`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import im2im_zoo
from im2im_zoo.core.errors import PackageError
from im2im_zoo.evaluation import evaluate
from im2im_zoo.evaluation.comparison import Task
from im2im_zoo.images import open_image
from im2im_zoo.packaging import Exported
from im2im_zoo.runtime import PredictionResult, predict

RunOf = Callable[..., Path]
GROUPING = {
    "callable": "im2im_zoo.instances.methods.components.group",
    "kwargs": {"threshold": 0.5, "min_size": 4},
}
SIZE = 32
# A network that sees all of a tile and takes tiles of one size only.
FIXED = f"""
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[2] != {SIZE} or image.shape[3] != {SIZE}:
            raise ValueError("another size")
        return self.convolution(image) + image.amax((2, 3), keepdim=True)
"""


def held_out(nuclei: Path, kind: str) -> xr.DataArray:
    return open_image(next((nuclei / "val" / kind).iterdir()))


def metrics_of(result: PredictionResult, target: xr.DataArray, task: Task) -> Mapping[str, float]:
    return evaluate(open_image(result.labels or result.output), target, task).metrics


def assert_states(exported: Exported, metrics: Mapping[str, float]) -> None:
    """The package states these metrics: unrounded in Python, with four digits in the RDF and the README."""
    assert dict(exported.metrics.values) == pytest.approx(dict(metrics), rel=1e-6, abs=1e-6, nan_ok=True)
    rdf = yaml.safe_load((exported.folder / "rdf.yaml").read_text(encoding="utf-8"))
    stated = {name: float(value) for name, value in rdf["config"]["im2im_zoo"]["figures"].items()}
    assert stated == pytest.approx(dict(metrics), rel=1e-3, nan_ok=True)
    readme = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert all(f"| {name} | {value:.4g} |" in readme for name, value in exported.metrics.values.items())


def test_metrics_of_a_convolutional_network_are_those_of_its_tiles(
    run_of: RunOf, nuclei: Path, tmp_path: Path
) -> None:
    messages: list[str] = []
    exported = im2im_zoo.export_run(run_of(), tmp_path / "package", report=messages.append)
    image = held_out(nuclei, "images")
    result = predict(exported.folder, image, tmp_path / "p.ome.zarr", tile={"y": 64, "x": 64}, halo="exact")
    assert result.tiles > 4
    metrics = metrics_of(result, held_out(nuclei, "targets"), "semantic")
    assert 0.05 < metrics["dice"] < 0.95
    assert_states(exported, metrics)
    assert "Measuring on 1 held-out image(s)" in messages
    assert exported.metrics.baselines["Otsu dice"] > 0.5


def test_metrics_of_a_network_of_fixed_size_are_those_of_its_blended_tiles(
    run_of: RunOf, nuclei: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fixed_size.py").write_text(FIXED)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = run_of(
        network={"callable": "fixed_size.Fixed"},
        data__patch_size=[SIZE, SIZE],
        output__task="regression",
        output__postprocessing=[],
    )
    exported = im2im_zoo.export_run(
        run, tmp_path / "package", weights=["torchscript"], allow_code=["fixed_size"]
    )
    result = predict(exported.folder, held_out(nuclei, "images"), tmp_path / "p.ome.zarr")
    assert result.plan.blend
    # The target as the recipe has it.
    target = (held_out(nuclei, "targets") > 0).astype(np.float32)
    assert_states(exported, metrics_of(result, target, "regression"))


def test_metrics_of_objects_are_those_of_the_labels_that_users_get(
    run_of: RunOf, nuclei: Path, tmp_path: Path
) -> None:
    run = run_of(output__task="instance", output__grouping=GROUPING)
    exported = im2im_zoo.export_run(run, tmp_path / "package", weights=["onnx"])
    tile = {"y": 64, "x": 64}
    result = predict(
        exported.folder, held_out(nuclei, "images"), tmp_path / "p.ome.zarr", tile=tile, halo="exact"
    )
    metrics = metrics_of(result, held_out(nuclei, "targets"), "instance")
    assert metrics["objects_predicted"] == result.objects
    assert result.objects
    assert_states(exported, metrics)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": "newest"}, "checkpoint 'newest' is unknown: choose best or last"),
        ({"weights": ["keras"]}, "weights 'keras': choose at least one of onnx"),
        ({"weights": []}, "choose at least one"),
        ({"opset": 16}, "opset 16 cannot be written: choose 17 to 23"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(
    arguments: Mapping[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=message):
        im2im_zoo.export_run(tmp_path / "no_run", tmp_path / "package", **arguments)  # type: ignore[arg-type]


def test_it_prints_nothing_and_tells_what_it_does(
    run_of: RunOf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    messages: list[str] = []
    stages: set[str] = set()
    im2im_zoo.export_run(
        run_of(),
        tmp_path / "package",
        weights=["onnx"],
        report=messages.append,
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert capfd.readouterr() == ("", "")
    assert "left out the authors" in messages[0]
    assert messages[1] == f"Exporting to {tmp_path / 'package'}"
    assert "tiles" in stages
