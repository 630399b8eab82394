"""Training: what a run folder holds, exact resume, and what each failure says and leaves."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import im2im_zoo, in_a_process, press_ctrl_c_when_there_is

from im2im_zoo.core.errors import ComponentError, RecipeError, TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.training.callbacks import TrainingProgress
from im2im_zoo.training.run import load_framework, open_run
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]


def weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(path, weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def test_a_run_folder_holds_what_a_person_needs_to_do_it_again(tiny: Tiny, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    run = train(tiny(), tmp_path / "run", report=seen.append)
    assert run.provenance["state"] == "complete"
    assert len(run.provenance["data"]["sha256"]) == 64
    assert run.provenance["data"]["validation"]
    assert {row["epoch"] for row in run.metrics} == {0, 1}
    assert {"train_loss", "val_loss", "val_dice", "learning_rate", "seconds"} <= set(run.metrics[0])
    assert f"torch=={torch.__version__}" in (run.path / "environment.txt").read_text()
    assert list((run.path / "tensorboard").glob("events.*"))
    best = max(range(2), key=lambda i: run.metrics[i]["val_dice"])
    assert torch.load(run.checkpoint("best"), weights_only=True)["epoch"] == best
    assert seen[-1].batches == seen[-1].total_batches == 4
    assert [s.batches for s in seen] == sorted(s.batches for s in seen)
    network = load_framework(run).exported_network()
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert not network.training


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        {
            "callable": "torch.optim.lr_scheduler.StepLR",
            "call": False,
            "kwargs": {"step_size": 1, "gamma": 0.3},
        },
        {
            "callable": "torch.optim.lr_scheduler.ReduceLROnPlateau",
            "call": False,
            "kwargs": {"patience": 0, "threshold": 1e9},
        },
    ],
    ids=["constant", "falling", "at a plateau"],
)
def test_a_resumed_run_ends_as_an_unbroken_one(
    tiny: Tiny, tmp_path: Path, scheduler: dict[str, object] | None
) -> None:
    schedule = {} if scheduler is None else {"framework__kwargs__scheduler": scheduler}
    unbroken = train(tiny(trainer__max_epochs=3, **schedule), tmp_path / "unbroken")
    train(tiny(trainer__max_epochs=1, **schedule), tmp_path / "resumed")
    resumed = train(tiny(trainer__max_epochs=3, **schedule), tmp_path / "resumed", resume=True)
    expected, found = weights(unbroken.checkpoint("last")), weights(resumed.checkpoint("last"))
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key
    timeless = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in run.metrics] for run in (unbroken, resumed)
    ]
    assert timeless[0] == timeless[1]


def test_what_was_not_validated_is_blank_in_the_metrics(tiny: Tiny, tmp_path: Path) -> None:
    run = train(tiny(trainer__max_epochs=4, trainer__check_val_every_n_epoch=2), tmp_path / "run")
    assert ["val_loss" in row for row in run.metrics] == [False, True, False, True]
    assert all("train_loss" in row for row in run.metrics)


def test_a_run_that_ends_before_anything_was_validated_keeps_its_last_epoch(
    tiny: Tiny, tmp_path: Path
) -> None:
    run = train(tiny(trainer__max_steps=1, trainer__check_val_every_n_epoch=2), tmp_path / "run")
    assert (run.provenance["state"], len(run.metrics)) == ("complete", 1)
    assert run.checkpoint("last").is_file()


def test_without_validation_the_best_epoch_is_that_of_the_training_figure(tiny: Tiny, tmp_path: Path) -> None:
    never = {"monitor": "train_loss", "monitor_mode": "min", "trainer__check_val_every_n_epoch": 3}
    run = train(tiny(**never), tmp_path / "run")
    assert len(run.metrics) == 2
    assert run.checkpoint("best").is_file()


def test_the_seed_decides_the_weights(tiny: Tiny, tmp_path: Path) -> None:
    one = [
        weights(train(tiny(seed=s, trainer__max_epochs=1), tmp_path / n).checkpoint("last"))
        for n, s in (("a", 1), ("b", 1), ("c", 2))
    ]
    key = next(k for k in one[0] if k.endswith("weight"))
    assert torch.equal(one[0][key], one[1][key])
    assert not torch.equal(one[0][key], one[2][key])


def test_an_existing_run_is_neither_overwritten_nor_mixed(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(trainer__max_epochs=1), tmp_path / "run")
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(TrainingError, match=r"already exists: resume it with --resume"):
        train(tiny(), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"differs in data\.batch_size .*3 then, 2 now"):
        train(tiny(data__batch_size=2), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_other_images_are_not_resumed_on(tiny: Tiny, tmp_path: Path) -> None:
    import shutil

    recipe = tiny(trainer__max_epochs=1)
    train(recipe, tmp_path / "run")
    copy = tmp_path / "images"
    shutil.copytree(recipe.data.path, copy)
    for file in (copy / "train" / "images").iterdir():
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(TrainingError, match="trained on other images"):
        train(tiny(data__path=str(copy)), tmp_path / "run", resume=True)


def test_a_folder_of_something_else_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    for resume in (False, True):
        with pytest.raises(TrainingError, match="give another --output"):
            train(tiny(), tmp_path / "mine", resume=resume)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            {"network__kwargs__featres": [1]},
            ComponentError,
            r"network\.kwargs\.featres.*did you mean 'features'",
        ),
        ({"network__kwargs__out_channels": 2}, TrainingError, r"set the network's output channels to 1"),
        ({"network__kwargs__in_channels": 3}, TrainingError, r"set network\.kwargs for 1 input channel"),
        (
            {"trainer__max_epoch": 1},
            RecipeError,
            r"unknown key 'trainer\.max_epoch'; did you mean 'max_epochs'",
        ),
        ({"trainer__enable_progress_bar": True}, RecipeError, r"training sets this itself"),
        ({"trainer__check_val_every_n_epoch": 3}, RecipeError, r"2 epochs never reach a validation"),
        ({"trainer__precision": "7"}, TrainingError, r"trainer: .*[Pp]recision"),
        ({"framework__callable": "torch.nn.MSELoss"}, ComponentError, r"is not a Framework"),
        ({"framework__kwargs__optimizer__call": True}, ComponentError, r"needs params.*call: false"),
        (
            {
                "data__cost": "masks",
                "framework__callable": "im2im_zoo.frameworks.cyclegan.CycleGAN",
                "framework__kwargs": {},
            },
            RecipeError,
            r"data\.cost: CycleGAN ignores weight maps; .*, or use Diffusion, FCN, Pix2Pix or Probabilistic$",
        ),
        (
            {"data__pairing": "unpaired"},
            RecipeError,
            r"unpaired: FCN needs pairs .*, or use CycleGAN$",
        ),
        ({"monitor": "val_dise"}, TrainingError, r"monitor: 'val_dise' is not among.*val_dice"),
        (
            {"framework__kwargs__optimizer__kwargs__lr": 1e30},
            TrainingError,
            r"became nan.*lower the learning rate",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_key(
    tiny: Tiny, tmp_path: Path, overrides: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tiny(**overrides), tmp_path / "run")
    if (tmp_path / "run").exists():
        assert open_run(tmp_path / "run").provenance["state"] == "failed"


def test_callbacks_and_schedulers_are_taken_by_dotted_path(tiny: Tiny, tmp_path: Path) -> None:
    stop = {
        "callable": "pytorch_lightning.callbacks.EarlyStopping",
        "kwargs": {"monitor": "val_loss", "patience": 1, "min_delta": 1e9},
    }
    decay = {
        "callable": "torch.optim.lr_scheduler.StepLR",
        "call": False,
        "kwargs": {"step_size": 1, "gamma": 0.1},
    }
    recipe = tiny(trainer__max_epochs=9, trainer__callbacks=[stop], framework__kwargs__scheduler=decay)
    run = train(recipe, tmp_path / "run")
    assert len(run.metrics) == 2
    rates = [row["learning_rate"] for row in run.metrics]
    assert rates[1] == pytest.approx(rates[0] * 0.1)


def test_mixed_precision_accumulation_and_weight_averaging_pass_through(tiny: Tiny, tmp_path: Path) -> None:
    average = {
        "callable": "pytorch_lightning.callbacks.StochasticWeightAveraging",
        "kwargs": {"swa_lrs": 0.001, "swa_epoch_start": 1},
    }
    recipe = tiny(
        trainer__precision="bf16-mixed",
        trainer__accumulate_grad_batches=2,
        trainer__callbacks=[average],
        trainer__max_epochs=3,
    )
    assert train(recipe, tmp_path / "run").provenance["state"] == "complete"


def test_a_damaged_checkpoint_is_named(tiny: Tiny, tmp_path: Path) -> None:
    run = train(tiny(trainer__max_epochs=1), tmp_path / "run")
    run.checkpoint("best").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"best\.ckpt"):
        load_framework(run)


def test_a_checkpoint_with_code_in_it_is_not_run(tiny: Tiny, tmp_path: Path) -> None:
    run = train(tiny(trainer__max_epochs=1), tmp_path / "run")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state_dict": Evil()}, run.checkpoint("best"))
    with pytest.raises(TrainingError, match="holds more than weights"):
        load_framework(run)
    assert not (tmp_path / "ran").exists()


def _asked(recipe: Recipe, folder: Path) -> list[str]:
    file = folder / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    return ["train", str(file), "--output", str(folder / "run")]


def train_until_interrupted(arguments: list[str]) -> None:
    """Train, and press Ctrl-C as soon as there is a checkpoint."""
    press_ctrl_c_when_there_is(Path(arguments[-1]) / "checkpoints" / "last.ckpt")
    im2im_zoo(arguments)


def test_ctrl_c_keeps_the_last_epoch_and_says_how_to_go_on(tiny: Tiny, tmp_path: Path) -> None:
    done = in_a_process(train_until_interrupted, _asked(tiny(trainer__max_epochs=1000), tmp_path))
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["state"] == "interrupted"
    epochs = len(open_run(tmp_path / "run").metrics)
    resumed = train(tiny(trainer__max_epochs=epochs + 1), tmp_path / "run", resume=True)
    assert len(resumed.metrics) >= epochs + 1


def test_a_run_killed_before_its_recipe_was_written_is_resumed(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "provenance.json").write_text("{}")
    with pytest.raises(TrainingError, match="resume it with --resume"):
        train(tiny(trainer__max_epochs=1), run)
    assert len(train(tiny(trainer__max_epochs=1), run, resume=True).metrics) == 1


def train_with_small_files(arguments: list[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    im2im_zoo(arguments)


def test_a_full_disk_is_said_and_leaves_no_broken_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    wide = tiny(network__kwargs__features=[32, 32, 32, 64, 64, 32])  # checkpoints of more than 1.5 MB
    done = in_a_process(train_with_small_files, _asked(wide, tmp_path))
    assert done.returncode == 1
    assert "no space" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["state"] == "failed"


def train_with_little_memory(arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
    im2im_zoo(arguments)


def test_a_process_without_memory_says_what_needs_less_and_keeps_its_run(tiny: Tiny, tmp_path: Path) -> None:
    # What the first convolution gives of a batch takes 16 GiB.
    large = tiny(
        network__kwargs__features=[256, 8, 8, 8, 8, 8],
        data__patch_size=[128, 128],
        data__batch_size=1024,
        data__patches_per_image=1024,
        data__augmentations=[],
    )
    done = in_a_process(train_with_little_memory, _asked(large, tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    expected = (
        "out of memory with data.batch_size=1024 and data.patch_size=[128, 128]: try --data.batch_size=512"
    )
    assert expected in done.stderr, done.stderr
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["state"] == "failed"
    assert provenance["reason"].startswith("out of memory")
