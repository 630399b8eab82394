"""Heteroscedastic regression: its likelihood, what its metrics see, and what is exported."""

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.fcn import FCN
from im2im_zoo.frameworks.heteroscedastic import GaussianNLL, MeanAndVariance


@pytest.mark.parametrize("space", [(5, 6), (3, 4, 5)])
def test_the_loss_is_the_likelihood_of_torch(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mean, log_variance, target = (torch.randn(2, 3, *space) for _ in range(3))
    prediction = torch.cat([mean, 3 * log_variance], 1).requires_grad_()
    found = GaussianNLL()(prediction, target)
    variance = (3 * log_variance).exp().requires_grad_()
    torch.testing.assert_close(found, nn.GaussianNLLLoss(eps=1e-12)(mean, target, variance))
    [gradient] = torch.autograd.grad(found, prediction)
    expected = (mean - target) / variance / target.numel()
    torch.testing.assert_close(gradient[:, :3], expected.detach())


def test_the_likelihood_is_least_where_the_variance_is_the_squared_error() -> None:
    target, mean = torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 1, 1, 1)
    losses = {
        s: float(GaussianNLL()(torch.cat([mean, torch.full_like(mean, s)], 1), target))
        for s in torch.linspace(0, 4, 401).tolist()
    }
    assert min(losses, key=losses.__getitem__) == pytest.approx(torch.tensor(9.0).log().item(), abs=0.01)


def test_an_extreme_variance_gives_a_finite_loss_and_output() -> None:
    prediction = torch.tensor([0.5, 1e4, 0.5, -1e4]).reshape(1, 4, 1, 1)[:, [0, 2, 1, 3]]
    assert torch.isfinite(GaussianNLL()(prediction, torch.zeros(1, 2, 1, 1)))
    variance = MeanAndVariance(nn.Identity())(prediction)[0, 2:].flatten()
    torch.testing.assert_close(variance.log(), torch.tensor([10.0, -10.0]))


@pytest.mark.filterwarnings(r"ignore:.*self\.log")
def test_metrics_see_the_mean_and_the_package_gets_mean_and_variance() -> None:
    network, metric = nn.Conv2d(1, 4, 1), MeanSquaredError()
    framework = FCN(network, heteroscedastic=True, metrics={"mse": metric})
    batch = {"input": torch.rand(2, 1, 4, 4), "target": torch.rand(2, 2, 4, 4)}
    framework.validation_step(batch, 0)
    output = network(batch["input"])
    torch.testing.assert_close(metric.compute(), nn.functional.mse_loss(output[:, :2], batch["target"]))
    assert framework.output_channels(2) == 4
    exported = framework.exported_network()(batch["input"])
    torch.testing.assert_close(exported[:, :2], output[:, :2])
    torch.testing.assert_close(exported[:, 2:], output[:, 2:].exp())


@pytest.mark.parametrize("more", [{"loss": nn.MSELoss()}, {"activation": nn.Sigmoid()}])
def test_a_loss_or_an_activation_of_its_own_is_refused(more: dict[str, nn.Module]) -> None:
    with pytest.raises(TrainingError, match=r"framework\.kwargs\.heteroscedastic: .*remove loss and"):
        FCN(nn.Identity(), heteroscedastic=True, **more)


def test_without_it_a_loss_is_needed() -> None:
    with pytest.raises(TrainingError, match=r"framework\.kwargs\.loss is missing"):
        FCN(nn.Identity())
