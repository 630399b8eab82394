"""Metrics logged while training equal the whole-set formula, however the set is cut into batches."""

import numpy as np
import pytest
import torch

from im2im_zoo.frameworks.metrics import Dice, Pearson


@pytest.mark.parametrize("batches", [1, 3, 8])
def test_pearson_over_batches_is_that_of_all_voxels(batches: int) -> None:
    random = np.random.default_rng(0)
    target = random.normal(100, 5, (8, 2, 6, 7))
    prediction = target * 3 + random.normal(0, 9, target.shape)
    metric = Pearson()
    for p, t in zip(np.array_split(prediction, batches), np.array_split(target, batches), strict=True):
        metric.update(torch.from_numpy(p), torch.from_numpy(t))
    expected = np.mean([np.corrcoef(prediction[:, c].ravel(), target[:, c].ravel())[0, 1] for c in range(2)])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_pearson_of_a_constant_prediction_is_zero() -> None:
    metric = Pearson()
    metric.update(torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4))
    assert float(metric.compute()) == 0


def test_dice_counts_logits_above_zero() -> None:
    metric = Dice()
    prediction = torch.tensor([3.0, -1.0, 0.5, -2.0]).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    metric.update(prediction, target)
    assert float(metric.compute()) == pytest.approx(2 * 1 / (2 + 2))
    metric.update(prediction, (prediction > 0).float())
    assert float(metric.compute()) == pytest.approx(2 * 3 / (2 + 2 + 2 + 2))


def test_dice_of_nothing_found_where_nothing_is_is_one() -> None:
    metric = Dice()
    metric.update(-torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    assert float(metric.compute()) == 1
