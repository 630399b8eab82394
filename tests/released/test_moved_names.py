"""Dotted paths of earlier versions, wherever a recipe, a run or a package can hold one, mean what is there today."""

import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.core.moved_names import MOVED, current_name
from im2im_zoo.engines import open_engine
from im2im_zoo.package import open_package
from im2im_zoo.packaging.grouping import grouping_file, grouping_name
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import resolve_component
from im2im_zoo.recipe.load import dump_recipe, load_recipe
from im2im_zoo.training.build import build_framework, check_recipe
from im2im_zoo.training.run import TrainingRun, load_framework, open_run
from im2im_zoo.training.train import train
from im2im_zoo.workflows.export_run import export_run

HERE = Path(__file__).parent
Copied = Callable[[str], Path]
# Everything of im2im_zoo that a recipe of a version may name: networks, losses, metrics, frameworks, instance methods.
NAMES = [
    pytest.param(name, id=f"{file.parent.name}:{name}")
    for file in sorted(HERE.glob("[0-9]*/names.txt"))
    for name in file.read_text(encoding="utf-8").split()
]
RECIPES = sorted(str(path.relative_to(HERE)) for path in HERE.glob("[0-9]*/**/recipe.yaml"))
TRAININGS = sorted(str(path.relative_to(HERE)) for path in HERE.glob("[0-9]*/training"))


def dotted_paths(content: Any) -> list[str]:
    """The paths of all components in plain values."""
    if isinstance(content, dict):
        own = [content["callable"]] if "callable" in content and content.get("id") != "custom" else []
        return own + [path for value in content.values() for path in dotted_paths(value)]
    return [path for value in content for path in dotted_paths(value)] if isinstance(content, list) else []


@pytest.mark.parametrize("name", NAMES)
def test_each_name_that_a_recipe_can_hold_is_found(name: str) -> None:
    found = resolve_component(name, "recipe")
    assert getattr(found, "__name__", "") == current_name(name).rpartition(".")[2]


@pytest.mark.parametrize("path", RECIPES)
def test_each_recipe_of_a_released_version_is_one_of_today(path: str) -> None:
    recipe = load_recipe(HERE / path)
    check_recipe(recipe)
    named = dotted_paths(yaml.safe_load((HERE / path).read_text(encoding="utf-8")))
    written = dotted_paths(yaml.safe_load(dump_recipe(recipe)))
    assert [current_name(name) for name in named] == written
    listed = {str(parameter.values[0]) for parameter in NAMES}
    assert {name for name in named if name.startswith("im2im_zoo.")} <= listed


# The run is a copy: Lightning tells that its folder is not where it was.
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("folder", TRAININGS)
def test_an_old_recipe_trains_and_an_old_run_is_exported_and_resumed(folder: str, copied: Copied) -> None:
    copy = copied(folder)
    overrides: list[tuple[str, object]] = [("data.path", str(copy / "data")), ("data.workers", 0)]
    recipe = load_recipe(copy / "recipe.yaml", [*overrides, ("trainer.max_epochs", 1)])
    assert train(recipe, copy / "new").provenance["state"] == "complete"

    old = open_run(copy / "run")
    data = old.recipe.data.model_copy(update={"path": copy / "data"})
    old = TrainingRun(old.path, old.recipe.model_copy(update={"data": data}), old.provenance, old.metrics)
    export_run(old, copy / "package", weights=["torchscript"])
    with open_package(copy / "package") as package:
        assert package.weights == ("torchscript",)

    before = torch.load(copy / "run/checkpoints/last.ckpt", weights_only=True)
    recipe = load_recipe(copy / "recipe.yaml", [*overrides, ("trainer.max_epochs", 3)])
    run = train(recipe, copy / "run", resume=True)
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2]
    after = torch.load(copy / "run/checkpoints/last.ckpt", weights_only=True)
    assert after["global_step"] > before["global_step"]
    # What is kept under the name of a class is lost, without a word, if the class gets another: callbacks, the data.
    assert before.keys() <= after.keys()
    assert before["callbacks"].keys() - after["callbacks"].keys() == set()
    assert before["state_dict"].keys() == after["state_dict"].keys()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if modules, and a class, had been elsewhere in an earlier version."""
    here = {
        "im2im_zoo.nets": "im2im_zoo.networks",
        "im2im_zoo.nets.unets.BlurUNet": "im2im_zoo.networks.blur_pool_unet.BlurPoolUNet",
        "im2im_zoo.methods": "im2im_zoo.frameworks",
        "im2im_zoo.methods.dice": "im2im_zoo.losses.dice",
        "im2im_zoo.labels": str(
            resolve_component("im2im_zoo.grouping.components.group", "").__module__
        ).rpartition(".")[0],
    }
    for name, today in here.items():
        monkeypatch.setitem(MOVED, name, today)


@pytest.mark.usefixtures("moved")
@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("im2im_zoo.nets.fnet.FNet", "im2im_zoo.networks.fnet.FNet"),
        ("im2im_zoo.nets.unets.BlurUNet", "im2im_zoo.networks.blur_pool_unet.BlurPoolUNet"),
        ("im2im_zoo.nets.unets.Other", "im2im_zoo.networks.unets.Other"),
        ("im2im_zoo.methods.dice.SoftDice", "im2im_zoo.losses.dice.SoftDice"),
        ("im2im_zoo.methods.dices.SoftDice", "im2im_zoo.frameworks.dices.SoftDice"),
        ("im2im_zoo.nets", "im2im_zoo.networks"),
        ("im2im_zoo.networks.fnet.FNet", "im2im_zoo.networks.fnet.FNet"),
        ("elsewhere.im2im_zoo.nets", "elsewhere.im2im_zoo.nets"),
        ("torch.nn.Conv2d", "torch.nn.Conv2d"),
        ("", ""),
    ],
)
def test_the_longest_entry_counts_and_other_paths_stay(old: str, today: str) -> None:
    assert current_name(old) == today


def is_there(name: str) -> bool:
    """Whether a dotted path is that of something; a folder that is left of a package that moved is nothing."""
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return getattr(found, "__file__", "") is not None


def test_the_table_leads_to_what_is_there_and_hides_nothing() -> None:
    for old, today in MOVED.items():
        assert old.startswith("im2im_zoo.")
        assert current_name(today) == today, f"{old} moved twice: name today's place at once"
        assert is_there(today), f"{old} is said to be {today} now, which is not there"
        assert not is_there(old), f"{old} is there, but means {today}: recipes could not name it"


OLD = {
    "name": "Named as before",
    "framework": {
        "callable": "im2im_zoo.methods.fcn.FCN",
        "kwargs": {
            "loss": {"callable": "im2im_zoo.methods.dice.SoftDice", "kwargs": {"sigmoid": True}},
            "metrics": {"dice": {"callable": "im2im_zoo.methods.metrics.Dice"}},
        },
    },
    "network": {"callable": "im2im_zoo.nets.unets.BlurUNet", "kwargs": {"features": 2}},
    "data": {"path": "data", "augmentations": [{"callable": "monai.transforms.RandFlipd", "kwargs": {"prob": 0.5}}]},
    "input": {"axes": ["batch", "channel", "y", "x"]},
    "output": {"task": "instance", "grouping": {"callable": "im2im_zoo.labels.components.group"}},
    "trainer": {"callbacks": [{"callable": "pytorch_lightning.callbacks.LearningRateMonitor"}]},
}  # fmt: skip


@pytest.mark.usefixtures("moved")
def test_a_recipe_that_names_what_moved_is_built_packaged_and_compared_as_one_of_today(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(OLD), encoding="utf-8")
    recipe = load_recipe(path, [("network.kwargs.depth", 1)])
    assert recipe.network.callable == "im2im_zoo.networks.blur_pool_unet.BlurPoolUNet"
    assert recipe.framework.kwargs["loss"]["callable"] == "im2im_zoo.losses.dice.SoftDice"
    check_recipe(recipe)
    assert type(build_framework(recipe)).__name__ == "FCN"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert Recipe.model_validate(OLD).framework == recipe.framework
    function = resolve_component("im2im_zoo.labels.components.group", "")
    assert (grouping_name(recipe), grouping_file(recipe)) == (
        "components.py",
        Path(inspect.getfile(function)),
    )


@pytest.mark.usefixtures("moved")
def test_a_run_whose_recipe_names_what_moved_is_loaded(copied: Copied) -> None:
    run = copied(TRAININGS[0]) / "run"
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    for today, old in (
        ("im2im_zoo.networks.blur_pool_unet.BlurPoolUNet", "im2im_zoo.nets.unets.BlurUNet"),
        ("im2im_zoo.frameworks.", "im2im_zoo.methods."),
        ("im2im_zoo.losses.dice", "im2im_zoo.methods.dice"),
    ):
        assert today in text
        text = text.replace(today, old)
    (run / "recipe.yaml").write_text(text, encoding="utf-8")
    network = load_framework(open_run(run)).exported_network()
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


@pytest.mark.usefixtures("moved")
def test_an_architecture_that_names_what_moved_is_built_with_consent(tmp_path: Path) -> None:
    kwargs = {"depth": 1, "features": 2}
    network = resolve_component("im2im_zoo.networks.blur_pool_unet.BlurPoolUNet", "")(**kwargs)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    known = spec.ArchitectureFromLibraryDescr(
        callable="BlurUNet", import_from="im2im_zoo.nets.unets", kwargs=kwargs  # type: ignore[arg-type]
    )  # fmt: skip
    engine = open_engine(
        "pytorch_state_dict", tmp_path / "weights.pt", architecture=known, root=tmp_path, allow_code=True
    )
    [output] = engine([torch.zeros(1, 1, 8, 8).numpy()])
    assert output.shape == (1, 1, 8, 8)


def test_names_of_other_packages_are_no_more_trusted_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, "im2im_zoo.nets", "os")
    with pytest.raises(ComponentError, match="--allow-code os"):
        resolve_component("im2im_zoo.nets.system", "network")
