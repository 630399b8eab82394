"""Instance labels on their way into a batch: their numbers survive, and patches find the objects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.augmentation import build_augmentation
from im2im_zoo.data.patches.center_samplers import ObjectSampler, find_object_boxes
from im2im_zoo.data.patches.placement import sample_patch
from im2im_zoo.recipe import Data
from im2im_zoo.recipe.components import Component
from im2im_zoo.recipe.load import dump_recipe, load_recipe


def component(name: str, **kwargs: Any) -> Component:
    return Component(callable=f"monai.transforms.{name}", kwargs=kwargs)


TURNED = {"prob": 1.0, "rotate_range": [0.5], "scale_range": [0.2, 0.2]}
WARPED = {"prob": 1.0, "spacing": [12, 12], "magnitude_range": [1, 2]}


@pytest.mark.parametrize(
    "transform",
    [
        component("RandAffined", **TURNED),
        component("RandRotated", prob=1.0, range_x=0.5),
        component("RandZoomd", prob=1.0, min_zoom=0.7, max_zoom=1.4),
        component("Rand2DElasticd", **WARPED),
        component("OneOf", transforms=[{"callable": "monai.transforms.RandAffined", "kwargs": TURNED}]),
    ],
    ids=lambda c: c.callable.rpartition(".")[2],
)
def test_labels_stay_labels_while_the_image_is_interpolated(
    transform: Component, nuclei_2d: tuple[np.ndarray, np.ndarray]
) -> None:
    image, labels = (torch.from_numpy(a[None, 100:148, 60:108].astype(np.float32)) for a in nuclei_2d)
    cost = (labels > 0).float()
    data = Data(path="images", patch_size=(48, 48), augmentations=(transform,), cost="costs")
    augmentation = build_augmentation(data, labels=True)
    assert augmentation is not None
    made = augmentation({"input": image.clone(), "target": labels.clone(), "cost": cost.clone()}, [1])
    assert not torch.equal(made["target"], labels)
    assert set(made["target"].unique().tolist()) <= {0.0, *labels.unique().tolist()}
    assert set(made["cost"].unique().tolist()) <= {0.0, 1.0}
    assert len(set(made["input"].unique().tolist()) - set(image.unique().tolist())) > 100


def test_what_a_recipe_says_of_the_interpolation_is_kept() -> None:
    step = component("RandAffined", **TURNED, mode="bilinear")
    augmentation = build_augmentation(
        Data(path="images", patch_size=(8, 8), augmentations=(step,)), labels=True
    )
    assert augmentation is not None
    target = torch.arange(64.0).view(1, 8, 8)
    made = augmentation({"input": target.clone(), "target": target.clone()}, [1])
    assert torch.equal(made["input"], made["target"])


def write_labels(folder: Path, labels: np.ndarray) -> Path:
    file = folder / "labels.npy"
    np.save(file, labels[None].astype(np.float32))
    return file


def test_each_object_has_a_box_however_many_parts_it_has_and_however_it_is_read(tmp_path: Path) -> None:
    labels = np.zeros((6, 8, 9), int)
    labels[1, 2:4, 3], labels[5, 7, 8] = 9, 9
    labels[2:4, 0:5, 1] = 70000
    expected = [[[1, 2, 3], [6, 8, 9]], [[2, 0, 1], [4, 5, 2]]]
    assert find_object_boxes(write_labels(tmp_path, labels), labels.shape).tolist() == expected
    assert find_object_boxes(write_labels(tmp_path, labels), labels.shape, block_bytes=1).tolist() == expected
    assert find_object_boxes(write_labels(tmp_path, labels * 0), labels.shape, block_bytes=1).shape == (
        0,
        2,
        3,
    )


def test_patches_around_objects_are_centred_in_a_box_or_lie_at_the_border() -> None:
    boxes = np.array([[[100, 200], [110, 203]], [[0, 398], [1, 400]]])
    draws = [sample_patch((300, 400), (32, 64), 0, 0, i, ObjectSampler(boxes, 1.0)) for i in range(400)]
    corners = {draw.corner for draw in draws}
    assert {c for c in corners if c != (0, 336)} == {
        (y - 16, x - 32) for y in range(100, 110) for x in range(200, 203)
    }
    assert 150 < sum(draw.corner == (0, 336) for draw in draws) < 250
    assert draws[7] == sample_patch((300, 400), (32, 64), 0, 0, 7, ObjectSampler(boxes, 1.0))
    assert len({draw.seed for draw in draws}) == 400


def test_the_share_of_patches_around_objects_is_as_asked() -> None:
    boxes = np.array([[[500, 500], [501, 501]]])
    around = [
        sample_patch((1000, 1000), (8, 8), 0, 0, i, ObjectSampler(boxes, 0.3)).corner == (496, 496)
        for i in range(2000)
    ]
    assert 0.27 < np.mean(around) < 0.33
    none = ObjectSampler(boxes[:0], 1.0)
    assert len({sample_patch((1000, 1000), (8, 8), 0, 0, i, none).corner for i in range(50)}) == 50


def test_a_batch_has_the_label_numbers_and_an_object_in_each_patch(tmp_path: Path) -> None:
    labels = np.zeros((128, 128), np.uint16)
    labels[100:104, 20:24] = 4321
    for shift, part in enumerate(("train", "val")):
        moved = np.roll(labels, shift, 0)
        for kind, array in (("images", moved.astype(np.float32)), ("targets", moved)):
            (tmp_path / part / kind).mkdir(parents=True)
            tifffile.imwrite(tmp_path / part / kind / "a.tif", array)
    changes: list[tuple[str, object]] = [
        ("data.path", str(tmp_path)),
        ("data.patch_size", [16, 16]),
        ("data.object_patches", 1.0),
        ("data.batch_size", 16),
        ("target.preprocessing", []),
        ("output.task", "instance"),
        ("output.postprocessing", []),
    ]
    recipe = load_recipe("nuclei_2d", changes)
    data = ImagePairs(recipe)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    data.teardown()
    assert batch["target"].dtype == torch.float32
    assert batch["target"].shape == (16, 1, 16, 16)
    assert set(batch["target"].unique().tolist()) == {0.0, 4321.0}
    assert (batch["target"].flatten(1).sum(1) > 0).all()
    assert "object_patches: 1.0" in dump_recipe(recipe)


@pytest.mark.parametrize(("key", "value"), [("output.task", "semantic"), ("data.pairing", "unpaired")])
def test_patches_around_objects_need_labels_of_each_image(key: str, value: str) -> None:
    changes: list[tuple[str, object]] = [("data.object_patches", 0.5), ("output.task", "instance")]
    with pytest.raises(RecipeError, match=r"object_patches needs a target of instance labels"):
        load_recipe("nuclei_2d", [*changes, (key, value)])
