"""What is chosen for images and a machine."""

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.data.patches.advice import StepMemory, choose_batch, choose_patch, choose_workers
from im2im_zoo.data.patches.extents import ImageExtents, measure_extents


def image(*sizes: int, pixel_size: tuple[float, ...] | None = None) -> xr.DataArray:
    axes = ("z", "y", "x")[-len(sizes) :]
    attrs = {} if pixel_size is None else {"pixel_size_um": dict(zip(axes, pixel_size, strict=True))}
    return xr.DataArray(np.zeros((1, *sizes), np.uint16), dims=("channel", *axes), attrs=attrs)


@pytest.mark.parametrize(
    ("smallest", "gpu", "expected"),
    [
        ((1024, 1000), True, [256, 256]),
        ((1024, 1000), False, [128, 128]),
        ((100, 1000), True, [96, 656]),
        ((9, 300, 70), True, [8, 288, 64]),
        ((100, 1000, 1000), True, [32, 128, 128]),
        ((5, 7), True, [4, 4]),
    ],
)
def test_a_patch_lies_within_every_image_and_can_be_halved(
    smallest: tuple[int, ...], gpu: bool, expected: list[int]
) -> None:
    chosen = choose_patch(ImageExtents(smallest), gpu=gpu)
    assert chosen.value == expected
    assert all(size <= most for size, most in zip(chosen.value, smallest, strict=True))
    assert " x ".join(map(str, smallest)) in chosen.reason


def test_a_patch_is_as_long_along_all_axes_in_micrometres() -> None:
    chosen = choose_patch(ImageExtents((200, 2000, 2000), (1.0, 0.25, 0.25)), gpu=True)
    assert chosen.value == [32, 128, 128]
    assert "4 times as long along z (from the files)" in chosen.reason
    assert choose_patch(ImageExtents((200, 2000, 2000), (0.5, 0.5, 0.5)), gpu=True).value == [80, 80, 80]


def test_a_patch_holds_objects_whole_up_to_a_size() -> None:
    chosen = choose_patch(ImageExtents((2000, 2000), objects=(90, 100)), gpu=False)
    assert chosen.value == [176, 192]
    assert "2 times the objects, which measure up to 90 x 100" in chosen.reason
    huge = choose_patch(ImageExtents((9000, 9000), objects=(3000, 3000)), gpu=False)
    assert huge.value == [256, 256]


def test_other_steps_and_less_memory_make_other_patches() -> None:
    extents = ImageExtents((1000, 1000))
    assert choose_patch(extents, gpu=False, step=96).value == [96, 96]
    assert choose_patch(extents, gpu=False, shrink=0.25).value == [64, 64]


def test_a_batch_has_more_of_smaller_patches() -> None:
    assert choose_batch((128, 128), gpu=False).value == 8
    assert choose_batch((128, 128), gpu=True).value == 32
    assert choose_batch((64, 256, 256), gpu=False).value == 2


def test_a_batch_is_what_fits_the_memory() -> None:
    chosen = choose_batch((128, 128), gpu=False, memory=StepMemory(10**8, 10**9, 5 * 10**9))
    assert chosen.value == 4
    assert chosen.reason == "the most that fit 5 GB: each patch needs about 1 GB"
    assert choose_batch((128, 128), gpu=False, memory=StepMemory(0, 10**9, 10)).value == 1
    assert choose_batch((128, 128), gpu=False, memory=StepMemory(0, 0, 10**9)).value == 8


def test_processors_are_left_to_a_network_that_is_on_them() -> None:
    assert choose_workers({}, gpu=False).value == 0
    assert choose_workers({"accelerator": "cpu"}, gpu=True).value == 0
    alone, shared = (choose_workers({"devices": count}, gpu=True).value for count in (1, 64))
    assert 0 <= shared <= alone <= 8


def test_extents_are_of_the_smallest_image_and_the_usual_voxel() -> None:
    images = [image(64, 80, pixel_size=(0.5, 0.5)), image(90, 70), image(99, 99, pixel_size=(0.7, 0.7))]
    assert measure_extents(images) == ImageExtents((64, 70), (0.6, 0.6))
    assert measure_extents([image(5, 6, 7)]) == ImageExtents((5, 6, 7))


def test_objects_are_measured_whole() -> None:
    labels = image(60, 60)
    labels[0, 10:20, 30:35] = 3
    labels[0, 40:52, 30:36] = 7
    labels[0, :30, :2] = 9  # cut by the border
    assert measure_extents([labels], [labels]).objects == (12, 6)
    assert measure_extents([labels], [image(60, 60)]).objects is None
    alone = image(60, 60)
    alone[0, :30, :25] = 1
    assert measure_extents([alone], [alone]).objects == (30, 25)
