"""Each place of a recipe takes only what belongs there, and nothing that writes outside the run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from im2im_zoo.core.errors import ComponentError, Im2ImError, RecipeError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.build import build_trainer_options, check_recipe
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]
CHECKPOINT = "pytorch_lightning.callbacks.ModelCheckpoint"
CSV = "pytorch_lightning.loggers.CSVLogger"


def component(path: str, **kwargs: object) -> dict[str, object]:
    return {"callable": path, "kwargs": kwargs}


LOSS = component("torch.nn.MSELoss")
ADAM = {"callable": "torch.optim.AdamW", "call": False}
CALLBACK = component("pytorch_lightning.callbacks.LearningRateMonitor")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", ADAM, r"network\.callable: .*AdamW is not a Module"),
        ("framework", LOSS, r"framework\.callable: .*MSELoss is not a Framework"),
        ("framework__kwargs__loss", ADAM, r"framework\.kwargs\.loss\.callable: .*AdamW is not a Module"),
        (
            "framework__kwargs__loss",
            {"callable": "torch.optim.AdamW"},
            r"loss\.callable: .*AdamW is not a Module",
        ),
        ("framework__kwargs__loss", CALLBACK, r"framework\.kwargs\.loss\.callable: .*is not a Module"),
        (
            "framework__kwargs__optimizer",
            LOSS,
            r"framework\.kwargs\.optimizer\.callable: .*MSELoss is not a Optimizer",
        ),
        (
            "framework__kwargs__scheduler",
            ADAM,
            r"framework\.kwargs\.scheduler\.callable: .*is not a LRScheduler",
        ),
        (
            "framework__kwargs__metrics",
            {"mine": LOSS},
            r"framework\.kwargs\.metrics\.mine\.callable: .*is not a Metric",
        ),
        ("data__augmentations", [CALLBACK], r"data\.augmentations\.0\.callable: .*is not a transform"),
        ("data__device_augmentations", [LOSS], r"data\.device_augmentations\.0\.callable: .*is not a transf"),
        ("trainer__callbacks", [LOSS], r"trainer\.callbacks\.0\.callable: .*is not a Callback"),
        ("trainer__logger", CALLBACK, r"trainer\.logger\.callable: .*is not a Logger"),
        ("trainer__profiler", CALLBACK, r"trainer\.profiler\.callable: .*is not a Profiler"),
        ("trainer__strategy", CALLBACK, r"trainer\.strategy\.callable: .*is not a Strategy"),
        ("trainer__plugins", [CALLBACK], r"trainer\.plugins\.0\.callable: .*is not a Precision"),
        ("trainer__max_epochs", LOSS, r"trainer\.max_epochs takes plain values only"),
        ("trainer__model_registry", "mine", r"trainer\.model_registry: this would upload"),
        ("output__grouping", LOSS, r"output\.grouping\.callable: .*is a class, not a function of the maps"),
    ],
)
def test_a_component_of_another_kind_is_refused_by_its_key(
    tiny: Tiny, key: str, value: Any, message: str
) -> None:
    task = {"output__task": "instance"} if key == "output__grouping" else {}
    recipe = tiny(**{key: value}, **task)
    with pytest.raises(Im2ImError, match=message):
        check_recipe(recipe)


@pytest.mark.parametrize(
    ("key", "value", "inside"),
    [
        ("callbacks", [component(CHECKPOINT, dirpath="{outside}")], r"callbacks\.0\.kwargs\.dirpath"),
        ("callbacks", [component(CHECKPOINT, filename="../../mine")], r"callbacks\.0\.kwargs\.filename"),
        (
            "callbacks",
            [component("pytorch_lightning.callbacks.OnExceptionCheckpoint", dirpath="..")],
            r"callbacks\.0\.kwargs\.dirpath",
        ),
        ("logger", component(CSV, save_dir="{outside}"), r"logger\.kwargs\.save_dir"),
        ("logger", component(CSV, save_dir="s3://bucket/x"), r"logger\.kwargs\.save_dir"),
        ("logger", component(CSV, save_dir="logs", name="../../mine"), r"logger\.kwargs\.name"),
        ("logger", [component(CSV, save_dir="a", version="/b")], r"logger\.0\.kwargs\.version"),
        (
            "profiler",
            component("pytorch_lightning.profilers.SimpleProfiler", dirpath="{outside}", filename="x"),
            r"profiler\.kwargs\.dirpath",
        ),
    ],
)
def test_what_would_write_outside_the_run_folder_is_refused_before_anything_is_written(
    tiny: Tiny, tmp_path: Path, key: str, value: Any, inside: str
) -> None:
    given = [value] if isinstance(value, dict) else value
    for one in given:
        one["kwargs"] = {k: str(v).format(outside=tmp_path / "outside") for k, v in one["kwargs"].items()}
    recipe = tiny(**{f"trainer__{key}": value})
    with pytest.raises(
        ComponentError, match=rf"trainer\.{inside}: .* is outside the run folder: .*--allow-code"
    ):
        train(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    check_recipe(recipe, ("pytorch_lightning",))


def test_a_relative_folder_is_one_in_the_run_folder(tiny: Tiny, tmp_path: Path) -> None:
    value = [component(CHECKPOINT, dirpath="more", filename="{epoch}-{val_loss:.2f}")]
    recipe = tiny(trainer__callbacks=value, trainer__logger=component(CSV, save_dir="logs"))
    check_recipe(recipe)
    options = build_trainer_options(recipe, tmp_path / "run")
    assert options["callbacks"][0].dirpath == str(tmp_path / "run" / "more")
    assert options["logger"].save_dir == str(tmp_path / "run" / "logs")


def test_own_code_is_of_any_kind_where_a_function_will_do(
    tiny: Tiny, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "my_transform.py").write_text(
        "class Mine:\n    def __call__(self, patch):\n        return patch\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = tiny(data__augmentations=[component("my_transform.Mine")])
    check_recipe(recipe, ("my_transform",))
    with pytest.raises((ComponentError, RecipeError), match="--allow-code my_transform"):
        check_recipe(recipe)
