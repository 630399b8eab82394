"""Loss and exported network of heteroscedastic regression, which predicts a variance for each voxel; see `FCN`."""

import torch
from torch import Tensor, nn

from im2im_zoo.losses.weighted import weighted_mean

# Limits of the natural logarithm of the variance: standard deviations of 0.007 to 150 of a target of unit scale.
_LOWEST, _HIGHEST = -10.0, 10.0


class GaussianNLL(nn.Module):
    """Negative log likelihood of a Gaussian whose mean and variance are predicted, without its constant
    (Nix & Weigend 1994, doi:10.1109/ICNN.1994.374138; Kendall & Gal 2017, arXiv:1703.04977).
    """

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the mean over all voxels, or the weighted mean.

        Args:
            prediction: (batch, 2 * channel, (z,) y, x): the means, then the logarithms of the variances, which are
                clamped to a range.
            target: (batch, channel, (z,) y, x).
            weight: of each voxel, broadcastable to the target.
        """
        mean, log_variance = prediction.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(_LOWEST, _HIGHEST)
        each = 0.5 * ((target - mean) ** 2 * torch.exp(-log_variance) + log_variance)
        return weighted_mean(each, weight)


class MeanAndVariance(nn.Module):
    """A network trained with `GaussianNLL`, as a package holds it; outputs the means, then the variances."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.lowest = _LOWEST
        self.highest = _HIGHEST

    def forward(self, image: Tensor) -> Tensor:
        """Return means and variances, (batch, 2 * channel, (z,) y, x)."""
        output = self.network(image)
        count = output.shape[1] // 2
        variance = torch.exp(torch.clamp(output[:, count:], self.lowest, self.highest))
        return torch.cat([output[:, :count], variance], dim=1)
