"""The search for a learning rate: where the loss falls fastest, and what it says where there is none."""

import math
from collections.abc import Callable

import pytest

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.rate import find_rate, suggest_rate

RATES = [10 ** (-6 + 6 * i / 99) for i in range(100)]


def test_the_rate_where_the_loss_falls_fastest_is_suggested() -> None:
    losses = [1 / (1 + math.exp(4 * math.log10(rate / 1e-3))) for rate in RATES]
    found = suggest_rate(RATES, losses)
    # Smoothing delays by some steps of 0.06 decades.
    assert 1e-3 < found.suggestion < 5e-3
    assert len(found.rates) == len(found.losses) == 100


def test_a_loss_that_never_falls_or_diverges_at_once_is_an_error() -> None:
    with pytest.raises(TrainingError, match="does not fall at any learning rate"):
        suggest_rate(RATES, [1 + i for i in range(100)])
    with pytest.raises(TrainingError, match="diverged after 3 steps"):
        suggest_rate(RATES, [1, 1, 1, math.nan, *[1] * 96])


def test_a_recipe_is_trained_a_little_at_rising_rates(tiny: Callable[..., Recipe]) -> None:
    found = find_rate(tiny(), steps=60)
    assert 1e-6 < found.suggestion < 1
    assert len(found.rates) <= 60
    assert list(found.rates) == sorted(found.rates)
    assert found == find_rate(tiny(), steps=60)


def test_networks_trained_against_each_other_are_refused(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(framework__callable="im2im_zoo.frameworks.pix2pix.Pix2Pix", framework__kwargs={})
    with pytest.raises(TrainingError, match="against each other"):
        find_rate(recipe)
