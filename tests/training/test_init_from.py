"""Starting from the weights of another run: what is loaded, what is refused, and what the run says of it."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensors_for_tests import differing

from im2im_zoo.cli.train import parse_overrides
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.training.run import TrainingRun, load_framework, open_run
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]
STILL = {"framework__kwargs__optimizer__kwargs__lr": 0.0, "trainer__max_epochs": 1}


@pytest.fixture
def parent(tiny: Tiny, tmp_path: Path) -> TrainingRun:
    return train(tiny(trainer__max_epochs=1), tmp_path / "parent")


def parameters(run: TrainingRun) -> dict[str, torch.Tensor]:
    return dict(load_framework(run, "last").named_parameters())


def test_a_run_starts_from_the_best_weights_of_another_and_says_which(
    tiny: Tiny, parent: TrainingRun, tmp_path: Path
) -> None:
    child = train(tiny(network__init_from=str(parent.path), seed=5, **STILL), tmp_path / "child")
    before, after = parameters(parent), parameters(child)
    assert differing(before, after) == []
    assert child.provenance["parent"] == {
        "recipe": parent.recipe.name,
        "data_sha256": parent.provenance["data"]["sha256"],
        "checkpoint_sha256": hashlib.sha256(parent.checkpoint("best").read_bytes()).hexdigest(),
    }
    assert child.recipe.network.init_from == parent.path
    assert "parent" not in parent.provenance


def test_only_the_network_is_taken_not_what_the_framework_puts_around_it(
    tiny: Tiny, parent: TrainingRun, tmp_path: Path
) -> None:
    sigmoid = {"callable": "torch.nn.Sigmoid"}
    around = train(tiny(framework__kwargs__activation=sigmoid, **STILL), tmp_path / "around")
    assert next(iter(load_framework(around).exported_network().state_dict())).startswith("0.")
    child = train(tiny(network__init_from=str(around.path), seed=5, **STILL), tmp_path / "child")
    before, after = parameters(around), parameters(child)
    assert differing(before, after) == []


def test_a_resumed_run_does_not_look_for_its_parent_again(
    tiny: Tiny, parent: TrainingRun, tmp_path: Path
) -> None:
    start = str(parent.path)
    unbroken = train(tiny(network__init_from=start, trainer__max_epochs=2), tmp_path / "unbroken")
    train(tiny(network__init_from=start, trainer__max_epochs=1), tmp_path / "resumed")
    shutil.rmtree(parent.path)
    resumed = train(tiny(network__init_from=start, trainer__max_epochs=2), tmp_path / "resumed", resume=True)
    expected, found = parameters(unbroken), parameters(resumed)
    assert differing(expected, found) == []
    assert resumed.provenance["parent"] == unbroken.provenance["parent"]


def test_a_run_is_not_resumed_from_other_first_weights(
    tiny: Tiny, parent: TrainingRun, tmp_path: Path
) -> None:
    train(tiny(trainer__max_epochs=1), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"differs in network\.init_from"):
        train(tiny(network__init_from=str(parent.path)), tmp_path / "run", resume=True)


def test_weights_that_do_not_fit_are_listed(tiny: Tiny, parent: TrainingRun, tmp_path: Path) -> None:
    wide = tiny(network__init_from=str(parent.path), network__kwargs__features=[4, 4, 8, 8, 8, 6])
    with pytest.raises(
        TrainingError,
        match=r"(?s)network\.init_from: .* do not fit.*\(1, 4, 1, 1\) in the run, \(1, 6, 1, 1\)",
    ):
        train(wide, tmp_path / "wide")
    other = tiny(network__init_from=str(parent.path), network__kwargs__norm="instance")
    with pytest.raises(TrainingError, match=r"running_mean: missing in the network\n"):
        train(other, tmp_path / "other")
    assert not (tmp_path / "wide").exists()


def test_a_folder_that_is_no_run_is_refused_with_its_key(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"network\.init_from: .*nothing is not a run folder"):
        train(tiny(network__init_from=str(tmp_path / "nothing")), tmp_path / "run")


def test_a_run_without_a_whole_epoch_is_refused(tiny: Tiny, parent: TrainingRun, tmp_path: Path) -> None:
    shutil.rmtree(parent.path / "checkpoints")
    with pytest.raises(TrainingError, match=r"best\.ckpt does not exist"):
        train(tiny(network__init_from=str(parent.path)), tmp_path / "run")


def test_the_command_line_can_say_it_beside_other_keys_of_the_network() -> None:
    arguments = ["--network.init_from=runs/first", "--network.kwargs.features.0=16"]
    network = load_recipe("nuclei_2d", parse_overrides(arguments)).network
    assert network.init_from == Path("runs/first")
    assert network.kwargs["features"] == [16, 24, 24, 32, 32, 12]


def test_a_parent_that_was_itself_started_from_a_run_is_loaded_without_that_run(
    tiny: Tiny, parent: TrainingRun, tmp_path: Path
) -> None:
    child = train(tiny(network__init_from=str(parent.path), **STILL), tmp_path / "child")
    shutil.rmtree(parent.path)
    assert open_run(child.path).recipe.network.init_from == parent.path
    grandchild = train(tiny(network__init_from=str(child.path), **STILL), tmp_path / "grandchild")
    assert grandchild.provenance["parent"]["data_sha256"] == child.provenance["data"]["sha256"]
