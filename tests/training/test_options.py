"""What a recipe takes of Lightning by dotted path does what it says: averages of weights, loggers, strategies, precision."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensors_for_tests import differing

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.failures import explain_failures
from im2im_zoo.training.run import TrainingRun, load_framework
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]
AVERAGE = {"callable": "pytorch_lightning.callbacks.EMAWeightAveraging", "kwargs": {"decay": 0.8}}


def checkpoint(run: TrainingRun) -> dict[str, dict[str, torch.Tensor]]:
    loaded: dict[str, dict[str, torch.Tensor]] = torch.load(run.checkpoint("last"), weights_only=True)
    return loaded


def test_an_average_of_the_weights_is_what_is_exported_and_is_resumed_exactly(
    tiny: Tiny, tmp_path: Path
) -> None:
    unbroken = train(tiny(trainer__callbacks=[AVERAGE], trainer__max_epochs=3), tmp_path / "unbroken")
    train(tiny(trainer__callbacks=[AVERAGE], trainer__max_epochs=1), tmp_path / "resumed")
    resumed = train(
        tiny(trainer__callbacks=[AVERAGE], trainer__max_epochs=3), tmp_path / "resumed", resume=True
    )
    expected, found = checkpoint(unbroken), checkpoint(resumed)
    for kind in ("state_dict", "current_model_state"):
        assert differing(expected[kind], found[kind]) == []
    plain = train(tiny(trainer__max_epochs=3), tmp_path / "plain")
    key = next(k for k in expected["state_dict"] if k.endswith("conv.weight"))
    exported = load_framework(unbroken, "last").state_dict()[key]
    assert torch.equal(exported, expected["state_dict"][key])
    assert torch.equal(expected["current_model_state"][key], checkpoint(plain)["state_dict"][key])
    assert not torch.equal(exported, expected["current_model_state"][key])


def test_a_logger_is_taken_by_its_path(tiny: Tiny, tmp_path: Path) -> None:
    logger = {
        "callable": "pytorch_lightning.loggers.CSVLogger",
        "kwargs": {"save_dir": "logs", "name": "mine"},
    }
    run = train(tiny(trainer__logger=[logger]), tmp_path / "run")
    assert "val_loss" in next((run.path / "logs" / "mine").rglob("metrics.csv")).read_text()
    assert not (run.path / "tensorboard").exists()
    assert (run.path / "metrics.csv").is_file()


def test_a_strategy_is_taken_by_its_path_and_clipping_and_determinism_pass_through(
    tiny: Tiny, tmp_path: Path
) -> None:
    strategy = {"callable": "pytorch_lightning.strategies.SingleDeviceStrategy", "kwargs": {"device": "cpu"}}
    recipe = tiny(
        trainer__strategy=strategy,
        trainer__gradient_clip_val=0.5,
        trainer__deterministic=True,
        trainer__max_epochs=1,
    )
    try:
        assert train(recipe, tmp_path / "run").provenance["state"] == "complete"
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {},
            r"--data\.batch_size=1 --trainer\.accumulate_grad_batches=2 .*precision=bf16-mixed.*patch_size=\[16,16\]",
        ),
        (
            {"trainer__accumulate_grad_batches": 3, "trainer__precision": "bf16-mixed"},
            r"--data\.batch_size=1 --trainer\.accumulate_grad_batches=6 \(as many patches a step as now\), or --data\.patch",
        ),
        ({"data__batch_size": 1}, r"try --trainer\.precision"),
    ],
)
def test_out_of_memory_suggests_overrides_that_need_less(
    tiny: Tiny, tmp_path: Path, overrides: dict[str, object], expected: str
) -> None:
    with pytest.raises(TrainingError, match=expected), explain_failures(tiny(**overrides), tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"trainer__strategy": "deepspeed_stage_2"},
            "deepspeed_stage_2 saves sharded checkpoints",
        ),
        (
            {
                "trainer__strategy": {
                    "callable": "pytorch_lightning.strategies.FSDPStrategy",
                    "kwargs": {"state_dict_type": "sharded"},
                }
            },
            "FSDPStrategy saves sharded checkpoints, .* state_dict_type: full",
        ),
        (
            {"trainer__strategy": "fsdp", "trainer__callbacks": AVERAGE},
            "EMAWeightAveraging needs whole weights",
        ),
        ({"trainer__strategy": "fsdp", "trainer__accelerator": "cpu"}, "trainer: .*fsdp.* requires a GPU"),
    ],
)
def test_strategies_that_could_not_be_exported_are_refused_before_training(
    tiny: Tiny, tmp_path: Path, overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(tiny(**overrides), tmp_path / "run")


def test_a_batch_size_that_fits_is_found_by_lightning(tiny: Tiny, tmp_path: Path) -> None:
    finder = {
        "callable": "pytorch_lightning.callbacks.BatchSizeFinder",
        "kwargs": {"max_trials": 1, "steps_per_trial": 1, "init_val": 1},
    }
    recipe = tiny(trainer__callbacks=[finder], trainer__max_epochs=1)
    run = train(recipe, tmp_path / "run")
    assert run.metrics[-1]["step"] == 6  # 6 patches in batches of 1, the largest that was tried, not of 3


def test_a_share_of_the_images_at_a_time_is_resumed_exactly(
    tiny: Tiny, tmp_path: Path, nuclei_parts: Path
) -> None:
    few = {"data__path": str(nuclei_parts), "data__split": "random", "data__loaded": 0.34}
    unbroken = train(tiny(**few, trainer__max_epochs=4), tmp_path / "unbroken")
    train(tiny(**few, trainer__max_epochs=1), tmp_path / "resumed")
    kept = tiny(**few, trainer__max_epochs=4, data__cache=str(tmp_path / "cache"))
    resumed = train(kept, tmp_path / "resumed", resume=True)
    assert differing(checkpoint(unbroken)["state_dict"], checkpoint(resumed)["state_dict"]) == []
    without = train(tiny(**(few | {"data__loaded": 1}), trainer__max_epochs=4), tmp_path / "without")
    assert [row["train_loss"] for row in without.metrics] != [row["train_loss"] for row in unbroken.metrics]
