"""Centre normalisation against its formula, on real nuclei."""

import numpy as np
import pytest
from numpy.typing import NDArray

from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation


@pytest.fixture
def stack(nuclei_3d: tuple[NDArray[np.uint16], NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Two channels, (2, 31, 61, 57)."""
    return np.stack([nuclei_3d[0], nuclei_3d[0][::-1] // 3 + 7])


def test_mean_and_std_are_those_of_the_planes_in_the_middle(stack: NDArray[np.uint16]) -> None:
    result = centre_normalisation(axes="czyx", chunk_size=16)(stack)
    assert result.dtype == np.float32
    assert result.shape == stack.shape
    for one, made in zip(stack.astype(np.float64), result, strict=True):
        middle = one[7:23]  # 31 // 2 - 16 // 2
        np.testing.assert_allclose(made, (one - middle.mean()) / middle.std(), rtol=1e-6, atol=1e-6)


def test_by_default_the_middle_is_32_planes_as_in_the_paper() -> None:
    stack = np.random.default_rng(0).normal(size=(1, 50, 6, 5)) * np.arange(1, 51)[:, None, None]
    middle = stack[0, 9:41]
    expected = (stack - middle.mean()) / middle.std()
    np.testing.assert_allclose(centre_normalisation()(stack), expected, rtol=1e-5, atol=1e-6)


def test_planes_above_and_below_the_middle_do_not_count(stack: NDArray[np.uint16]) -> None:
    operation = centre_normalisation(chunk_size=9)
    brighter = stack.copy()
    brighter[:, [0, 1, -2, -1]] += 5000
    np.testing.assert_array_equal(operation(brighter)[:, 2:-2], operation(stack)[:, 2:-2])


def test_each_sample_has_its_own_statistics(stack: NDArray[np.uint16]) -> None:
    operation = centre_normalisation(chunk_size=8)
    batch = operation(np.stack([stack, stack * 2]))
    np.testing.assert_array_equal(batch[0], operation(stack))
    np.testing.assert_allclose(batch[1], batch[0], atol=1e-5)


def test_axes_are_found_by_their_letters(stack: NDArray[np.uint16]) -> None:
    expected = centre_normalisation(axes="bczyx", chunk_size=8)(stack)
    moved = centre_normalisation(axes="yxzc", chunk_size=8)(stack.transpose(2, 3, 1, 0))
    np.testing.assert_allclose(moved.transpose(3, 2, 0, 1), expected, rtol=1e-6, atol=1e-6)


def test_a_stack_of_fewer_planes_is_taken_whole(stack: NDArray[np.uint16]) -> None:
    thin = stack[:1, 12:17]
    expected = (thin - thin.mean()) / thin.std()
    np.testing.assert_allclose(centre_normalisation(chunk_size=32)(thin), expected, rtol=1e-5, atol=1e-6)


def test_a_constant_middle_is_not_divided_by_zero() -> None:
    stack = np.full((1, 9, 4, 4), 60000, np.uint16)
    stack[:, 0] = 60003
    result = centre_normalisation(chunk_size=3)(stack)
    np.testing.assert_array_equal(result[0, :, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"axes": "cyx"}, "z among them"), ({"axes": "czyy"}, "once"), ({"chunk_size": 0}, "chunk_size is 0")],
)
def test_what_makes_no_sense_is_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        centre_normalisation(**kwargs)  # type: ignore[arg-type]


def test_an_image_of_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 axes does not have the axes czyx"):
        centre_normalisation()(np.zeros((4, 5, 6)))
