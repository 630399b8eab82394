"""The pictures and the page of a run: kept as training goes on, however it ends, and without changing what is learnt."""

import html
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import im2im_zoo as zoo
from im2im_zoo.cli.train import train_with_progress
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.pictures import read_snapshots
from im2im_zoo.training.run import load_framework, open_run
from im2im_zoo.training.train import train
from im2im_zoo.workflows import training as workflow
from im2im_zoo.workflows.run_page import write_run_page

Tiny = Callable[..., Recipe]


def test_what_the_network_makes_of_held_out_patches_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    run = train(tiny(trainer__max_epochs=5), tmp_path / "run")
    snapshots = read_snapshots(run.path / "pictures")
    assert [s.epoch for s in snapshots] == [0, 1, 3, 4]
    for snapshot in snapshots:
        np.testing.assert_array_equal(snapshot.images["input"], snapshots[0].images["input"])
    last = snapshots[-1].images
    network = load_framework(run, "last").exported_network()
    with torch.inference_mode():
        again = network(torch.from_numpy(last["input"])).numpy()
    np.testing.assert_allclose(again, last["output"], atol=1e-5)
    assert last["target"].std() > 0


def test_pictures_change_nothing_of_what_is_learnt(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = train(tiny(), tmp_path / "one")
    monkeypatch.setattr(sys.modules[train.__module__], "SnapshotRecorder", lambda *_, **__: pl.Callback())
    other = train(tiny(), tmp_path / "other")
    assert not (other.path / "pictures").exists()
    assert [row["val_loss"] for row in one.metrics] == [row["val_loss"] for row in other.metrics]


def test_a_run_has_a_page_of_one_file(tiny: Tiny, tmp_path: Path) -> None:
    run = train_with_progress(tiny(), tmp_path / "run", False, ())
    page = (run.path / "run.html").read_text()
    assert page.count("data:image/png;base64") >= 2 + 2
    assert page.count("<svg") >= 2
    assert run.recipe.name in page
    assert 'src="http' not in page
    assert "Training is complete" in page


def test_training_from_python_writes_the_page_during_training_and_at_its_end(
    tiny: Tiny, tmp_path: Path
) -> None:
    page, states = tmp_path / "run" / "run.html", list[str]()

    def report(state: object) -> None:
        if page.exists():
            states.append(page.read_text().split("Training is ")[1].split(".")[0])

    zoo.train(tiny(), tmp_path / "run", report=report, page_interval_s=0.0)
    assert states
    assert set(states) == {"running"}
    assert "Training is complete" in page.read_text()


def test_a_further_process_of_a_distributed_training_writes_no_page(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workflow.is_first_process()
    with monkeypatch.context() as further:
        further.setenv("LOCAL_RANK", "1")
        assert not workflow.is_first_process()
    monkeypatch.setattr(workflow, "is_first_process", lambda: False)
    run = zoo.train(tiny(trainer__max_epochs=1), tmp_path / "run")
    assert not (run.path / "run.html").exists()


def test_a_run_that_failed_has_a_page_that_says_why(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(monitor="val_dise")
    with pytest.raises(TrainingError, match="val_dise"):
        train_with_progress(recipe, tmp_path / "run", False, ())
    page = html.unescape((tmp_path / "run" / "run.html").read_text())
    assert "Training is failed: monitor: 'val_dise'" in page
    before = (tmp_path / "run" / "run.html").stat().st_mtime_ns
    with pytest.raises(TrainingError, match="already exists"):
        train_with_progress(recipe, tmp_path / "run", False, ())
    assert (tmp_path / "run" / "run.html").stat().st_mtime_ns == before


def test_a_run_of_an_earlier_version_without_pictures_has_a_page(tiny: Tiny, tmp_path: Path) -> None:
    import shutil

    run = train(tiny(trainer__max_epochs=1), tmp_path / "run")
    shutil.rmtree(run.path / "pictures")
    assert "<svg" in write_run_page(open_run(run.path)).read_text()
