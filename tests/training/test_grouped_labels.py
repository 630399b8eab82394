"""Instance labels of held-out patches during training, and the page of such a run."""

from pathlib import Path

import numpy as np
import pytest

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.training import grouped_labels
from im2im_zoo.training.grouped_labels import make_patch_labeler
from im2im_zoo.training.pictures import Snapshot
from im2im_zoo.training.run import TrainingRun
from im2im_zoo.training.train import train
from im2im_zoo.workflows.run_page import object_curves, object_metrics, run_report


@pytest.fixture
def recipe() -> Recipe:
    """Makes objects of distance maps, of which two nuclei have a distance of 1 in their middle."""
    return load_recipe("nuclei_watershed_2d", [("output.grouping.kwargs.min_size", 4)])


def target() -> np.ndarray:
    labels = np.zeros((1, 24, 24), np.float32)
    labels[0, 3:10, 3:10], labels[0, 13:20, 12:20] = 1, 2
    return labels


def logits(recipe: Recipe, labels: np.ndarray) -> np.ndarray:
    import torch

    from im2im_zoo.losses.instance_maps import maps_of

    kwargs = recipe.framework.kwargs
    maps = maps_of(torch.from_numpy(labels)[None], kwargs.get("maps", ["distance"]), kwargs.get("reach", 4))
    return torch.logit(maps, eps=1e-4)[0].numpy().astype(np.float32)


def test_patches_are_segmented_as_the_package_does(recipe):
    label = make_patch_labeler(recipe)
    found = label(np.stack([logits(recipe, target())] * 2))
    assert found.shape == (2, 1, 24, 24)
    assert object_metrics([(found[0], target())])["ap@0.50"] == 1
    assert object_metrics([(found[0], target()), (np.zeros_like(found[0]), target())])["ap@0.50"] == 0.5


def test_a_recipe_without_instances_has_no_labels(recipe):
    assert make_patch_labeler(load_recipe("nuclei_2d")) is None


def test_a_patch_that_fails_or_takes_long_ends_it_without_an_error(recipe, monkeypatch):
    outputs = np.stack([logits(recipe, target())] * 3)
    monkeypatch.setattr(grouped_labels, "_SECONDS", 0.0)
    assert len(make_patch_labeler(recipe)(outputs)) == 1

    def fail(*_: object) -> None:
        raise ProcessingError("no")

    monkeypatch.setattr(grouped_labels, "fit", fail)
    assert make_patch_labeler(recipe)(outputs).shape == (0, 1, 24, 24)


def run_with(folder: Path, recipe: Recipe, snapshots: list[Snapshot]) -> TrainingRun:
    (folder / "pictures").mkdir()
    for snapshot in snapshots:
        np.savez(folder / "pictures" / f"epoch_{snapshot.epoch:05}.npz", **snapshot.images)
    known = {"data": {"train": [], "validation": [], "sha256": ""}, "state": "running"}
    machine = dict.fromkeys(("system", "processors", "accelerator", "git_revision", "versions"), "")
    return TrainingRun(folder, recipe, {**known, **machine}, ())


def test_the_page_shows_objects_beside_those_of_the_target_with_their_metric(recipe, tmp_path):
    truth, output = target()[None], logits(recipe, target())[None]
    right = make_patch_labeler(recipe)(output)
    images = {"input": truth, "target": truth, "output": output}
    snapshots = [
        Snapshot(0, {**images, "labels": np.zeros_like(right)}),
        Snapshot(1, {**images, "labels": right}),
        Snapshot(3, {**images, "labels": right[:0]}),
    ]
    report = run_report(run_with(tmp_path, recipe, snapshots))
    panels = report.samples[0].panels
    maps = [f"{name}, epoch 3" for name in recipe.output.channels]
    assert [panel.title for panel in panels] == ["input", "target", "epoch 0", "epoch 1", *maps]
    assert [panel.kind for panel in panels[1:4]] == ["labels"] * 3
    assert [panel.caption for panel in panels[2:4]] == ["AP at IoU 0.5: 0.00", "AP at IoU 0.5: 1.00"]
    (curve,) = object_curves(snapshots)
    assert curve.series == {"patches shown": ((0.0, 0.0), (1.0, 1.0))}
    assert report.curves == (curve,)


def test_training_keeps_the_labels_of_its_patches(tiny, nuclei_folder, tmp_path, monkeypatch):
    from im2im_zoo.training.pictures import read_snapshots

    monkeypatch.setattr(
        "im2im_zoo.training.train.make_patch_labeler",
        lambda recipe, allow_code: lambda output: np.ones((len(output), 1, *output.shape[2:]), np.int32),
    )
    run = train(tiny(trainer__max_epochs=1), tmp_path / "run")
    (snapshot,) = read_snapshots(run.path / "pictures")
    assert snapshot.images["labels"].shape == snapshot.images["target"].shape
    assert snapshot.images["labels"].dtype == np.int32
