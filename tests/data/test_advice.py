"""What is chosen for images and a machine."""

from im2im_zoo.data.advice import choose_batch, choose_patch, choose_workers


def test_a_patch_lies_within_every_image_and_can_be_halved() -> None:
    assert choose_patch((1024, 1000)).value == [256, 256]
    assert choose_patch((100, 1000)).value == [96, 256]
    assert choose_patch((9, 300, 70)).value == [9, 128, 64]
    assert "9 x 300 x 70" in choose_patch((9, 300, 70)).reason


def test_a_batch_has_more_of_smaller_patches() -> None:
    assert choose_batch((128, 128), gpu=False).value == 8
    assert choose_batch((128, 128), gpu=True).value == 32
    assert choose_batch((64, 256, 256), gpu=False).value == 1


def test_processors_are_left_to_a_network_that_is_on_them() -> None:
    assert choose_workers({}, gpu=False).value == 0
    assert choose_workers({"accelerator": "cpu"}, gpu=True).value == 0
    alone, shared = (choose_workers({"devices": count}, gpu=True).value for count in (1, 64))
    assert 0 <= shared <= alone <= 8
