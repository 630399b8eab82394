"""Run folders that come from others: nothing in their checkpoints runs, and damage is reported as such."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from im2im_zoo.core.errors import Im2ImError, TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.run import TrainingRun, load_framework, open_run
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]


class Runs:
    """A pickle that makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    return train(tiny(trainer__max_epochs=1), tmp_path_factory.mktemp("stranger") / "run").path


def with_code(trained: Path, tmp_path: Path) -> tuple[TrainingRun, Path]:
    """A copy of a run whose checkpoints run code when they are unpickled, and the file that it would make."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("best", "last"):
        path = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        content = torch.load(path, weights_only=True)
        torch.save({**content, "more": Runs(tmp_path / "canary")}, path)
    return open_run(tmp_path / "run"), tmp_path / "canary"


def test_a_checkpoint_that_holds_code_is_not_loaded_anywhere(
    trained: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run, canary = with_code(trained, tmp_path)
    with pytest.raises(TrainingError, match=r"best\.ckpt holds more than weights and is not loaded"):
        load_framework(run)
    with pytest.raises(TrainingError, match=r"last\.ckpt holds more than weights and is not loaded"):
        train(tiny(trainer__max_epochs=2), run.path, resume=True)
    with pytest.raises(TrainingError, match=r"best\.ckpt holds more than weights and is not loaded"):
        train(tiny(network__init_from=str(run.path)), tmp_path / "new")
    assert not canary.exists()
    torch.load(run.checkpoint("last"), weights_only=False)  # what it is refused for
    assert canary.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("provenance.json", "{", r"provenance\.json is damaged: .*copy the run again"),
        ("provenance.json", "[]", r"provenance\.json is damaged: it holds list"),
        ("provenance.json", "{}", r"provenance\.json is damaged: it has no 'state'"),
        ("provenance.json", '{"state": "complete", "data": 3}', r"provenance\.json is damaged: .*'data'"),
        ("provenance.json", "\x00\xff", r"provenance\.json is damaged"),
        (
            "metrics.csv",
            "epoch,val_loss\n0,abc\n",
            r"metrics\.csv is damaged: .*row 1 has 'abc' as its 'val_loss'",
        ),
        ("metrics.csv", "epoch,val_loss\n0,1,2,3\n", r"metrics\.csv is damaged: .*row 1"),
        ("metrics.csv", "epoch\n\x00\n", r"metrics\.csv is damaged"),
        ("recipe.yaml", "{", r"recipe\.yaml cannot be read as YAML"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_what_is_wrong(
    trained: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(Im2ImError, match=message):
        open_run(tmp_path / "run")
