"""Noise2Void and Self2Self: what they learn from, what they leave out, and what a run and a package of them hold."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from self_supervised_for_tests import KINDS, batch, framework, tiny_recipe, waves
from tensors_for_tests import differing
from torch import Tensor, nn

from im2im_zoo.core.errors import ComponentError, RecipeError, TrainingError
from im2im_zoo.frameworks.noise2void import Noise2Void
from im2im_zoo.frameworks.self2self import Self2Self
from im2im_zoo.package import open_package
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.samples import write_samples
from im2im_zoo.training.build import check_recipe
from im2im_zoo.training.run import TrainingRun, open_run
from im2im_zoo.training.train import train
from im2im_zoo.workflows.export_run import export_run

# Said by Lightning of a step outside its trainer.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*self\.log")


@pytest.fixture(scope="module")
def noisy_nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples("denoising_n2v_2d", tmp_path_factory.mktemp("samples") / "noisy")


def loss_of(method: Any, data: dict[str, Tensor], seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    loss: Tensor = method.training_step(data, 0)
    return loss


class Seeing(nn.Module):
    """Gives what it is given, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return self.scale * image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_loss_falls_on_a_batch(kind: str, ndim: int) -> None:
    torch.manual_seed(0)
    method, data = framework(kind, ndim, channels=2), waves(ndim)
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    losses = []
    for seed in range(60):
        loss = loss_of(method, data, seed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < 0.5 * losses[0], "of four seeds 0.10 to 0.26 times"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_voxels_of_cost_0_are_no_part_of_the_loss(kind: str, ndim: int) -> None:
    torch.manual_seed(0)
    method, data = framework(kind, ndim, channels=2), batch(ndim, channels=2)
    cost = torch.ones_like(data["target"][:, :1])
    cost[..., 8:] = 0
    expected = loss_of(method, data | {"cost": cost})
    for other in (1e30, torch.nan):
        changed = torch.where(cost > 0, data["target"], other)
        assert torch.equal(loss_of(method, data | {"target": changed, "cost": cost}), expected)
    assert not torch.equal(loss_of(method, data), expected)
    assert loss_of(method, data | {"cost": 0 * cost}) == 0


def test_noise2void_is_the_mean_squared_error_of_what_is_hidden_alone() -> None:
    method, data = Noise2Void(Seeing(), masked_fraction=1 / 16), batch(channels=2)
    loss = loss_of(method, data)
    hidden = method.network.seen != data["input"]
    assert hidden.float().mean() == pytest.approx(1 / 16)
    torch.testing.assert_close(loss, ((method.network.seen - data["target"]) ** 2)[hidden].mean())


def test_noise2void_takes_another_loss_if_it_can_leave_voxels_out() -> None:
    method, data = Noise2Void(Seeing(), nn.L1Loss(reduction="none"), masked_fraction=1 / 16), batch()
    loss = loss_of(method, data)
    hidden = method.network.seen != data["input"]
    torch.testing.assert_close(loss, (method.network.seen - data["target"]).abs()[hidden].mean())
    with pytest.raises(TrainingError, match="MSELoss cannot weight voxels"):
        Noise2Void(Seeing(), nn.MSELoss())


def test_self2self_is_the_mean_squared_error_of_what_is_not_seen() -> None:
    torch.manual_seed(0)
    method, data = framework("self2self", channels=2), batch(channels=2)
    calls: list[tuple[Tensor, ...]] = []
    one_pass = method.network.one_pass

    def kept(image: Tensor, mask: Tensor) -> Tensor:
        prediction: Tensor = one_pass(image, mask)
        calls.append((mask, prediction))
        return prediction

    method.network.one_pass = kept
    loss = loss_of(method, data)
    [(mask, prediction)] = calls
    assert mask.shape == data["input"].shape
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert mask.mean() == pytest.approx(0.7, abs=0.05)
    torch.testing.assert_close(loss, ((prediction - data["target"]) ** 2)[mask == 0].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_validation_is_the_same_each_time_and_training_is_not(kind: str) -> None:
    method, data = framework(kind), batch()
    logged: list[Tensor] = []
    method.log = lambda name, value, **_: logged.append(value)  # type: ignore[method-assign]
    for seed in (0, 1):
        torch.manual_seed(seed)
        method.validation_step(data, 0)
    assert torch.equal(*logged)
    assert not torch.equal(loss_of(method, data, 0), loss_of(method, data, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_in_half_precision(kind: str) -> None:
    method, data = framework(kind), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(method, data)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(method, data).item(), rel=0.1)


def test_self2self_without_its_network_is_refused() -> None:
    with pytest.raises(ComponentError, match=r"cannot train Conv2d, .*; use .*Self2SelfUNet"):
        Self2Self(nn.Conv2d(1, 1, 1))


def test_a_method_and_a_pairing_that_do_not_go_together_are_refused(noisy_nuclei: Path) -> None:
    with pytest.raises(RecipeError, match=r"pairing: folders: Noise2Void .* set data\.pairing: self"):
        check_recipe(tiny_recipe("noise2void", noisy_nuclei, data__pairing="folders"))
    fcn = {"callable": "im2im_zoo.frameworks.fcn.FCN", "kwargs": {}}
    with pytest.raises(
        RecipeError, match=r"pairing: self: FCN needs targets; .*, or use Noise2Void or Self2Self$"
    ):
        check_recipe(tiny_recipe("noise2void", noisy_nuclei, framework=fcn))


def weights(run: TrainingRun) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_where_an_unbroken_one_does(kind: str, noisy_nuclei: Path, tmp_path: Path) -> None:
    unbroken = train(tiny_recipe(kind, noisy_nuclei), tmp_path / "unbroken")
    train(tiny_recipe(kind, noisy_nuclei, trainer__max_epochs=1), tmp_path / "resumed")
    resumed = train(tiny_recipe(kind, noisy_nuclei), tmp_path / "resumed", resume=True)
    assert differing(weights(unbroken), weights(resumed)) == []
    data = unbroken.provenance["data"]
    assert data["train"] == data["validation"] == ["denoising_n2v_2d"]
    assert "train_targets" not in data


def test_what_is_clean_is_measured_against_and_changes_nothing_of_the_training(
    noisy_nuclei: Path, tmp_path: Path
) -> None:
    once = train(tiny_recipe("noise2void", noisy_nuclei, trainer__max_epochs=1), tmp_path / "once")
    [clean] = (noisy_nuclei / "val" / "targets").iterdir()
    away = clean.rename(tmp_path / clean.name)
    clean.parent.rmdir()
    try:
        again = train(tiny_recipe("noise2void", noisy_nuclei, trainer__max_epochs=1), tmp_path / "again")
        export_run(again, tmp_path / "unmeasured", weights=("onnx",))
    finally:
        clean.parent.mkdir()
        away.rename(clean)
    assert differing(weights(once), weights(again)) == []
    assert once.provenance["data"]["sha256"] == again.provenance["data"]["sha256"]
    assert "No figures were measured" in (tmp_path / "unmeasured" / "README.md").read_text()


def test_a_package_gives_the_intensities_of_its_input_and_is_measured_against_what_is_clean(
    noisy_nuclei: Path, tmp_path: Path
) -> None:
    run = train(tiny_recipe("self2self", noisy_nuclei, trainer__max_epochs=1), tmp_path / "run")
    export_run(open_run(run.path), tmp_path / "package", weights=("onnx",))
    with open_package(tmp_path / "package") as package:
        assert package.raw["inputs"][0]["axes"][2]["size"]["step"] == 4, "the period of its masks"
        assert package.raw["config"]["im2im_zoo"]["figures"]["psnr"] > 0
    output, image = (np.load(tmp_path / "package" / f"test_{name}.npy") for name in ("output", "input"))
    assert output.mean() == pytest.approx(image.mean(), rel=0.5)
    assert output.mean() > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_one_run(kind: str, noisy_nuclei: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(kind, noisy_nuclei, trainer__devices=2, trainer__strategy="ddp")
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "im2im_zoo", "train", str(file), "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in open_run(tmp_path / "run").metrics] == [1, 2]
