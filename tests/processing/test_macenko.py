"""Macenko's stain normalisation: its formula, known mixtures of stains, and real stained tissue."""

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import immunohistochemistry

from im2im_zoo.processing.custom.macenko import REFERENCE_MAXIMA, REFERENCE_STAINS, macenko

# Ruifrok & Johnston 2001: haematoxylin, eosin, DAB.
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
Numbers = NDArray[np.float64]


def stains(*vectors: tuple[float, ...]) -> Numbers:
    """Unit vectors as columns."""
    made = np.array(vectors).T
    return made / np.linalg.norm(made, axis=0)


def concentrations() -> Numbers:
    """Of two stains in 200 x 200 pixels: both, either alone, and none."""
    rng = np.random.default_rng(0)
    found = rng.gamma(2, 0.15, (2, 200, 200))
    found[0, :40] = 0
    found[1, 40:80] = 0
    found[:, 80:100] = 0
    return found


def image_of(vectors: Numbers, amounts: Numbers) -> NDArray[np.uint8]:
    """As a camera sees it: 8 bits, (3, y, x)."""
    light = 255 * 10 ** -np.einsum("cs,syx->cyx", vectors, amounts)
    return np.rint(light).astype(np.uint8)


def degrees(found: Numbers, true: Numbers) -> Numbers:
    return np.asarray(np.degrees(np.arccos(np.clip((found * true).sum(axis=0), -1, 1))))


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    """Real colon with haematoxylin and DAB, (3, 512, 512)."""
    return np.ascontiguousarray(immunohistochemistry().transpose(2, 0, 1))


@pytest.mark.parametrize("second", [EOSIN, DAB])
def test_stains_of_a_known_mixture_are_found_to_a_degree(second: tuple[float, ...]) -> None:
    true = stains(HAEMATOXYLIN, second)
    found = macenko().measure(image_of(true, concentrations()).reshape(3, -1))
    assert found is not None
    assert degrees(found[0], true).max() < 1
    stained = concentrations()[:, 100:]
    np.testing.assert_allclose(found[1], np.percentile(stained, 99, axis=(1, 2)), rtol=0.05)


def test_images_of_the_same_tissue_in_other_stains_become_the_same_image() -> None:
    pale, dark = concentrations() * 0.6, concentrations()
    first = macenko()(image_of(stains(HAEMATOXYLIN, EOSIN), pale))
    second = macenko()(image_of(stains((0.70, 0.66, 0.27), (0.12, 0.98, 0.16)), dark))
    assert np.abs(image_of(stains(HAEMATOXYLIN, EOSIN), pale) - first).mean() > 10
    assert np.abs(first - second).mean() < 2


def test_an_image_that_has_the_stains_of_the_reference_is_kept() -> None:
    image = image_of(stains(HAEMATOXYLIN, EOSIN), concentrations())
    found = macenko().measure(image.reshape(3, -1))
    assert found is not None
    itself = macenko(stains=found[0].tolist(), maxima=found[1].tolist())
    assert np.abs(itself(image) - image).mean() < 0.5


def test_there_and_back_gives_the_image_again() -> None:
    image = image_of(stains(HAEMATOXYLIN, EOSIN), concentrations())
    found = macenko().measure(image.reshape(3, -1))
    assert found is not None
    back = macenko(stains=found[0].tolist(), maxima=found[1].tolist())
    assert np.abs(back(macenko()(image)) - image).mean() < 2


def test_the_steps_are_those_of_the_paper(tissue: NDArray[np.uint8]) -> None:
    density = -np.log10(np.maximum(tissue.reshape(3, -1), 1) / 255.0)
    stained = density[:, np.linalg.norm(density, axis=0) >= 0.15]
    plane = np.linalg.svd(stained, full_matrices=False)[0][:, :2]
    plane *= np.sign(plane.sum(axis=0))
    angles = np.arctan2(plane[:, 1] @ stained, plane[:, 0] @ stained)
    ends = np.percentile(angles, [1, 99])
    found = np.stack([plane @ [np.cos(a), np.sin(a)] for a in ends], axis=1)
    found = found[:, np.argsort(-found[0])]
    amounts = np.linalg.lstsq(found, density, rcond=None)[0]
    kept = np.linalg.lstsq(found, stained, rcond=None)[0]
    scaled = amounts * (np.array(REFERENCE_MAXIMA) / np.percentile(kept, 99, axis=1))[:, None]
    expected = np.minimum(255 * 10 ** -(stains(*np.transpose(REFERENCE_STAINS)) @ scaled), 255)
    result = macenko()(tissue)
    np.testing.assert_allclose(result, expected.reshape(tissue.shape), rtol=1e-4, atol=1e-3)


def test_real_tissue_has_stains_near_the_known_ones(tissue: NDArray[np.uint8]) -> None:
    found = macenko().measure(tissue.reshape(3, -1))
    assert found is not None
    assert degrees(found[0], stains(HAEMATOXYLIN, DAB)).max() < 15
    result = macenko()(tissue)
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 255
    # Whitest stays white; the reference's second stain is pink, so blue is absorbed less than brown did.
    white = tissue.min(axis=0) > 235
    assert white.sum() > 1000
    assert result[:, white].mean() > 225
    brown = tissue[2].astype(int) + 60 < tissue[0]
    assert result[2, brown].mean() > tissue[2, brown].mean() + 10


@pytest.mark.parametrize("grey", [0, 3, 90, 250, 255])
def test_images_without_two_stains_are_given_back(grey: int) -> None:
    image = np.full((3, 40, 30), grey, np.uint8)
    np.testing.assert_array_equal(macenko()(image), image.astype(np.float32))
    ramp = np.broadcast_to(np.linspace(1, grey + 1, 30), (3, 40, 30))
    np.testing.assert_allclose(macenko()(ramp), ramp, rtol=1e-6)


def test_one_stain_alone_is_no_pair() -> None:
    amounts = concentrations()
    amounts[1] = 0
    light = 255 * 10 ** -np.einsum("cs,syx->cyx", stains(HAEMATOXYLIN, EOSIN), amounts)
    np.testing.assert_allclose(macenko()(light), light, rtol=1e-6)


def test_axes_batch_and_intensity_go_by_their_arguments(tissue: NDArray[np.uint8]) -> None:
    part = tissue[:, :200, :150]
    expected = macenko()(part)
    moved = macenko(axes="byxc")(part.transpose(1, 2, 0))
    np.testing.assert_array_equal(moved.transpose(2, 0, 1), expected)
    batch = macenko()(np.stack([part, tissue[:, 200:400, :150]]))
    np.testing.assert_array_equal(batch[0], expected)
    scaled = macenko(intensity=65535.0)(part.astype(np.uint16) * 257)
    np.testing.assert_allclose(scaled / 257, expected, atol=1e-3)


def test_blocks_do_not_change_the_result(tissue: NDArray[np.uint8]) -> None:
    # Three blocks of 2**18 pixels; ordered by brightness, each has another part of the tissue.
    large = np.concatenate([tissue, tissue, tissue[:, :100]], axis=1)
    order = np.argsort(large.mean(axis=(0, 2)), kind="stable")
    np.testing.assert_allclose(macenko()(large[:, order]), macenko()(large)[:, order], rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"axes": "zyx"}, "c among them"),
        ({"intensity": 0}, "above 0"),
        ({"alpha": 50}, "alpha 50"),
        ({"maxima": (1.0, 2.0, 3.0)}, "2 maxima"),
    ],
)
def test_what_makes_no_sense_is_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        macenko(**kwargs)  # type: ignore[arg-type]


def test_an_image_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="not 3 channels"):
        macenko()(np.zeros((4, 8, 8)))
