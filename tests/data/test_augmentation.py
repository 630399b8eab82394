from typing import Any

import numpy as np
import pytest
import torch

from im2im_zoo.core.errors import ComponentError, DataError
from im2im_zoo.data.patches.augmentation import Augmentation, build_augmentation, check_augmentations
from im2im_zoo.recipe import Data
from im2im_zoo.recipe.components import Component


def component(name: str, **kwargs: Any) -> Component:
    return Component(callable=f"monai.transforms.{name}", kwargs=kwargs)


def data(*components: Component, **fields: Any) -> Data:
    return Data(path="images", patch_size=(48, 48), augmentations=components, **fields)


def built(*components: Component, **fields: Any) -> Augmentation:
    augmentation = build_augmentation(data(*components, **fields))
    assert augmentation is not None
    return augmentation


@pytest.fixture
def patch(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> dict[str, torch.Tensor]:
    crop = torch.from_numpy(nuclei_2d[0][None, 100:148, 60:108].astype(np.float32))
    return {"input": crop, "target": crop.clone()}


GEOMETRY = (
    component("RandFlipd", prob=0.5, spatial_axis=0),
    component("RandRotate90d", prob=0.5),
    component("RandAffined", prob=0.7, rotate_range=[0.5], scale_range=[0.2, 0.2], padding_mode="reflection"),
)


def test_input_and_target_are_moved_alike(patch: dict[str, torch.Tensor]) -> None:
    augmentation = built(*GEOMETRY)
    changed = 0
    for seed in range(20):
        made = augmentation(patch, [seed])
        torch.testing.assert_close(made["input"], made["target"], rtol=0, atol=0)
        changed += not torch.equal(made["input"], patch["input"])
    assert changed > 10


def test_the_result_is_a_function_of_the_seed(patch: dict[str, torch.Tensor]) -> None:
    steps = (*GEOMETRY, component("RandGaussianNoised", prob=1.0, keys=["input"], std=50.0))
    one, other = built(*steps), built(*steps)
    first = [one(patch, [seed]) for seed in range(6)]
    again = {seed: other(patch, [seed]) for seed in reversed(range(6))}
    for seed, made in enumerate(first):
        assert torch.equal(made["input"], again[seed]["input"])
        assert not torch.equal(made["input"], made["target"])
    assert len({float(made["input"].sum()) for made in first}) == 6


def test_the_global_generators_are_left_alone(patch: dict[str, torch.Tensor]) -> None:
    augmentation = built(*GEOMETRY, component("RandGaussianNoised", prob=1.0))
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    augmentation(patch, [3])
    assert (torch.rand(1), np.random.rand()) == expected


def test_the_result_is_plain_contiguous_float32(patch: dict[str, torch.Tensor]) -> None:
    made = built(component("Rotate90d"), component("CastToTyped", dtype="float64"))(patch, [0])
    for tensor in made.values():
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
    expected = torch.rot90(patch["input"], 1, (1, 2))
    assert torch.equal(made["input"], expected)


def test_given_keys_are_kept(patch: dict[str, torch.Tensor]) -> None:
    made = built(component("ScaleIntensityd", keys=["input"]))(patch, [0])
    assert float(made["input"].max()) == 1
    assert torch.equal(made["target"], patch["target"])


def test_transforms_within_others_get_keys_too(patch: dict[str, torch.Tensor]) -> None:
    inner = [
        {"callable": "monai.transforms.Flipd", "kwargs": {"spatial_axis": 0}},
        {"callable": "monai.transforms.Rotate90d"},
    ]
    augmentation = built(component("OneOf", transforms=inner))
    made = [augmentation(patch, [seed])["target"] for seed in range(12)]
    flipped, turned = patch["input"].flip(1), torch.rot90(patch["input"], 1, (1, 2))
    assert {torch.equal(m, flipped) for m in made} == {True, False}
    assert all(torch.equal(m, flipped) or torch.equal(m, turned) for m in made)


def test_volumes_are_augmented(nuclei_3d: tuple[np.ndarray, np.ndarray]) -> None:
    volume = torch.from_numpy(nuclei_3d[0][None, :16, :24, :24].astype(np.float32))
    augmentation = built(*(component("RandFlipd", prob=0.5, spatial_axis=axis) for axis in range(3)))
    made = [augmentation({"input": volume, "target": volume}, [seed])["input"] for seed in range(16)]
    assert len({float(m[0, 0, 0, 0]) for m in made}) > 4


def test_a_changed_shape_is_refused(patch: dict[str, torch.Tensor]) -> None:
    oblong = {key: value[:, :32] for key, value in patch.items()}
    with pytest.raises(DataError, match=r"from \(1, 32, 48\) to \(1, 48, 32\).*equal sides"):
        built(component("Rotate90d"))(oblong, [0])


def test_no_augmentations_are_none() -> None:
    assert build_augmentation(data()) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (component("RandFlipd", probs=1), r"data\.augmentations\.1\.kwargs\.probs.*'prob'"),
        (component("RandFlippd"), r"data\.augmentations\.1\.callable.*RandFlipd"),
        (component("RandFlip"), r"data\.augmentations\.1\.callable.*single array.*RandFlipd"),
        (component("RandGaussianSmoothd", prob="often"), r"data\.augmentations\.1: .*rejects"),
        (
            component("OneOf", transforms=[{"callable": "monai.transforms.Flipd", "kwargs": {"axis": 0}}]),
            r"data\.augmentations\.1\.kwargs\.transforms\.0\.kwargs\.axis",
        ),
    ],
)
def test_wrong_augmentations_are_refused_with_their_key(wrong: Component, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        build_augmentation(data(component("RandFlipd"), wrong))


def test_code_of_other_packages_has_to_be_allowed() -> None:
    other = Component(callable="collections.OrderedDict")
    with pytest.raises(ComponentError, match=r"--allow-code collections"):
        check_augmentations(data(other))
    check_augmentations(data(other), allow_code=("collections",))


def test_cost_maps_are_moved_alike_and_keep_their_values_where_keys_say_so(
    patch: dict[str, torch.Tensor],
) -> None:
    augmentation = built(*GEOMETRY, component("ScaleIntensityd", keys=["input", "target"]), cost="costs")
    patch = {**patch, "cost": patch["input"].clone()}
    for seed in range(8):
        made = augmentation(patch, [seed])
        raw = made["cost"]
        assert float(raw.max()) > 1
        scaled = (raw - raw.min()) / (raw.max() - raw.min())
        torch.testing.assert_close(made["input"], scaled)
        torch.testing.assert_close(made["target"], scaled)


def test_unpaired_images_are_transformed_each_by_its_own_seed(patch: dict[str, torch.Tensor]) -> None:
    noise = component("RandGaussianNoised", prob=1.0, keys=["input"], std=50.0)
    augmentation = built(component("RandFlipd", prob=0.5, spatial_axis=0), noise, pairing="unpaired")
    flips = set()
    for seed in range(40):
        made = augmentation(patch, [seed, 1000 + seed])
        assert torch.equal(made["input"], augmentation(patch, [seed, 7])["input"])
        assert torch.equal(made["target"], augmentation(patch, [7, 1000 + seed])["target"])
        assert torch.equal(made["target"], patch["target"]) or torch.equal(
            made["target"], patch["target"].flip(1)
        )
        nearer = min(
            (0, 1),
            key=lambda f: float(
                (made["input"] - (patch["input"].flip(1) if f else patch["input"])).abs().sum()
            ),
        )
        flips.add((nearer, torch.equal(made["target"], patch["target"])))
    assert len(flips) == 4


def test_keys_that_no_unpaired_image_has_are_refused() -> None:
    with pytest.raises(ComponentError, match=r"augmentations\.0\.kwargs\.keys: \['image'\] has neither"):
        built(component("RandFlipd", keys=["image"]), pairing="unpaired")


def test_a_batch_is_transformed_patch_by_patch_where_it_is(patch: dict[str, torch.Tensor]) -> None:
    augmentation = build_augmentation(data(device_augmentations=GEOMETRY), "device_augmentations")
    assert augmentation is not None
    batch = {key: torch.stack([value, value * 2, value * 3]) for key, value in patch.items()}
    made = augmentation.apply_to_batch(batch, [[3], [4], [5]])
    for i, seed in enumerate((3, 4, 5)):
        alone = augmentation({key: value[i] for key, value in batch.items()}, [seed])
        for key in ("input", "target"):
            assert torch.equal(made[key][i], alone[key])
    assert torch.equal(made["input"], made["target"])


def test_a_wrong_device_augmentation_is_refused_with_its_key() -> None:
    wrong = data(device_augmentations=[component("RandFlip")])
    with pytest.raises(ComponentError, match=r"data\.device_augmentations\.0\.callable.*RandFlipd"):
        check_augmentations(wrong)
