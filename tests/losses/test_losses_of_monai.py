"""Losses that come from MONAI by their own path: numbers of their papers, so that a release that changes one is seen."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from im2im_zoo.recipe.components import Component, build_component, check_component

P = 1 / (1 + math.exp(-1))  # of logit 1


def loss(name: str, **kwargs: object) -> torch.nn.Module:
    """As a recipe names it: checked, then built."""
    component = Component(callable=f"monai.losses.{name}", kwargs=kwargs)
    check_component(component, "framework.kwargs.loss")
    built: torch.nn.Module = build_component(component, "framework.kwargs.loss")
    return built


def image(values: list[float], ndim: int) -> Tensor:
    """(1, 1, (1,) 1, x)."""
    return torch.tensor(values).reshape(1, 1, *[1] * (ndim - 1), -1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_overlap_losses_of_four_voxels_are_those_by_hand(ndim: int) -> None:
    prediction, target = image([0.8, 0.6, 0.5, 0.1], ndim), image([1, 1, 0, 0], ndim)
    found, false_positive, false_negative = 1.4, 0.6, 0.6
    dice = 1 - 2 * found / (2 * found + false_positive + false_negative)
    assert loss("DiceLoss")(prediction, target).item() == pytest.approx(dice, abs=1e-5)
    tversky = 1 - found / (found + 0.3 * false_positive + 0.7 * false_negative)
    assert loss("TverskyLoss", alpha=0.3, beta=0.7)(prediction, target).item() == pytest.approx(
        tversky, abs=1e-5
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_losses_of_logits_are_those_by_hand(ndim: int) -> None:
    logits, target = image([1.0, 1.0], ndim), image([1, 0], ndim)
    cross_entropy = -(math.log(P) + math.log(1 - P)) / 2
    dice = 1 - 2 * P / (2 * P + 1)
    assert loss("DiceCELoss", sigmoid=True)(logits, target).item() == pytest.approx(
        dice + cross_entropy, abs=1e-5
    )
    focal = -((1 - P) ** 2 * math.log(P) + P**2 * math.log(1 - P)) / 2
    assert loss("FocalLoss", gamma=2.0)(logits, target).item() == pytest.approx(focal, abs=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_hausdorff_loss_is_the_error_times_the_squared_distances(ndim: int) -> None:
    # Distances to the boundary of the prediction (0.5 and above) and of the target, as MONAI's field has them.
    prediction, target = image([0.0, 0.9, 0.9, 0.0], ndim), image([0, 1, 0, 0], ndim)
    errors = [0.0, 0.1**2, 0.9**2, 0.0]
    of_prediction, of_target = [1, 1, 1, 1], [1, 1, 1, 2]
    expected = sum(e * (p**2 + t**2) for e, p, t in zip(errors, of_prediction, of_target, strict=True)) / 4
    found = loss("HausdorffDTLoss", include_background=True)(prediction, target)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(24, 20), (14, 16, 15)])
@pytest.mark.parametrize("data_range", [1.0, 4.0])
def test_ssim_loss_is_one_minus_that_of_scikit_image(shape: tuple[int, ...], data_range: float) -> None:
    rng = np.random.default_rng(0)
    first = rng.random(shape).astype(np.float32)
    second = (first + 0.2 * rng.random(shape)).astype(np.float32)
    expected = structural_similarity(
        first, second, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    module = loss("SSIMLoss", spatial_dims=len(shape), data_range=data_range)
    found = module(torch.from_numpy(second)[None, None], torch.from_numpy(first)[None, None])
    assert found.item() == pytest.approx(1 - expected, abs=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_centreline_dice_of_thin_lines_is_its_formula(ndim: int) -> None:
    # A line of one voxel's width is its own centreline.
    whole = torch.zeros(1, 1, *[9] * ndim)
    whole[(0, 0, *[4] * (ndim - 1))] = 1
    cut = whole.clone()
    cut[..., 2:4] = 0
    module = loss("SoftclDiceLoss", smooth_nr=0.0, smooth_dr=0.0, smooth=1e-6)
    assert module(whole, whole).item() == pytest.approx(0, abs=1e-5)
    precision, sensitivity = 1.0, 7 / 9
    expected = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    assert module(cut, whole).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_centreline_dice_sees_a_cut_more_than_a_thinning_of_as_many_voxels(ndim: int) -> None:
    whole = torch.zeros(1, 1, *[15] * ndim)
    whole[(0, 0, *[slice(6, 9)] * (ndim - 1), slice(1, 14))] = 1
    cut, thin = whole.clone(), whole.clone()
    cut[..., 7] = 0
    thin[(0, 0, *[slice(6, 9)] * (ndim - 2), 6, slice(6, 9))] = 0
    assert cut.sum() == thin.sum()
    centreline, dice = loss("SoftclDiceLoss"), loss("DiceLoss")
    assert dice(thin, whole).item() == pytest.approx(dice(cut, whole).item(), abs=1e-5)
    assert centreline(cut, whole).item() > 2 * centreline(thin, whole).item()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("DiceLoss", {"sigmoid": True}),
        ("DiceCELoss", {"sigmoid": True}),
        ("FocalLoss", {}),
        ("TverskyLoss", {"sigmoid": True}),
        ("HausdorffDTLoss", {"sigmoid": True, "include_background": True}),
        ("SSIMLoss", {"win_size": 5}),
        ("SoftclDiceLoss", {"sigmoid": True}),
    ],
)
def test_each_has_a_finite_gradient_that_is_not_0(ndim: int, name: str, kwargs: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, *[8] * ndim, generator=generator).requires_grad_()
    target = (torch.rand(2, 1, *[8] * ndim, generator=generator) > 0.5).float()
    extra = {"spatial_dims": ndim} if name == "SSIMLoss" else {}
    loss(name, **kwargs, **extra)(logits, target).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.any(logits.grad != 0)
