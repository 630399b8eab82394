"""What makes training faster: it is on when it is asked for, and a run is exported and resumed as any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensors_for_tests import differing

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.run import TrainingRun, load_framework
from im2im_zoo.training.speed import check_compiler
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]
    return state


def test_a_run_of_channels_last_resumes_to_the_same_end(tiny: Tiny, tmp_path: Path) -> None:
    last = {"network__channels_last": True}
    unbroken = train(tiny(**last, trainer__max_epochs=2), tmp_path / "unbroken")
    train(tiny(**last, trainer__max_epochs=1), tmp_path / "resumed")
    resumed = train(tiny(**last, trainer__max_epochs=2), tmp_path / "resumed", resume=True)
    assert differing(weights(unbroken), weights(resumed)) == []


@pytest.mark.slow
def test_a_compiled_run_has_plain_names_and_resumes_to_the_same_end(tiny: Tiny, tmp_path: Path) -> None:
    # Not the recipe's BasicUNet: torch 2.13 compiles the gradient of its padding wrongly.
    fnet = {
        "callable": "im2im_zoo.networks.fnet.FNet",
        "kwargs": {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "depth": 2, "features": 4},
    }
    compiled = {"network": fnet | {"compile": True}}
    plain = train(tiny(network=fnet, trainer__max_epochs=2), tmp_path / "plain")
    unbroken = train(tiny(**compiled, trainer__max_epochs=2), tmp_path / "unbroken")
    assert weights(unbroken).keys() == weights(plain).keys()
    train(tiny(**compiled, trainer__max_epochs=1), tmp_path / "resumed")
    resumed = train(tiny(**compiled, trainer__max_epochs=2), tmp_path / "resumed", resume=True)
    for key, value in weights(unbroken).items():
        torch.testing.assert_close(value, weights(resumed)[key], msg=key)
    assert plain.metrics[-1]["train_loss"] == pytest.approx(unbroken.metrics[-1]["train_loss"], rel=0.01)
    image = torch.rand(1, 1, 32, 32)
    assert load_framework(unbroken).exported_network()(image).shape == image.shape


def test_without_a_compiler_it_is_said_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TrainingError, match=r"network\.compile: torch\.compile needs a C\+\+ compiler"):
        check_compiler()
