"""Adversarial losses of generator and discriminator, of the discriminator's outputs.

MONAI's `PatchAdversarialLoss` is not used: it puts a sigmoid before a cross-entropy of probabilities (which is not
stable, and refused under autocast), a leaky rectifier before the squares and a tanh before the hinge, none of which are in
the papers, and its generator's hinge saturates.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["vanilla", "least_squares", "hinge"]
Outputs = Tensor | Sequence[Tensor]


class GANLoss(nn.Module):
    """GAN losses of the discriminator's outputs D, which have no sigmoid.

    | kind | discriminator | generator | source |
    |---|---|---|---|
    | vanilla | (-log s(D(real)) - log(1 - s(D(fake)))) / 2 | -log s(D(fake)) | Goodfellow et al. 2014, arXiv:1406.2661 |
    | least_squares | ((D(real) - 1)^2 + D(fake)^2) / 2 | (D(fake) - 1)^2 | Mao et al. 2017, arXiv:1611.04076 |
    | hinge | (max(0, 1 - D(real)) + max(0, 1 + D(fake))) / 2 | -D(fake) | Lim and Ye 2017, arXiv:1705.02894 |

    s is the sigmoid; the generator's vanilla loss is the one that does not saturate. Each is the mean over the voxels of
    an output, and the sum over the outputs of several discriminators. The discriminator's loss is halved, as pix2pix
    and CycleGAN halve it, to slow it down against the generator.

    Args:
        kind: one of the three.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: Kind = "vanilla") -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"unknown GAN loss {kind!r}: choose one of {', '.join(get_args(Kind))}")
        self.kind = kind

    def generator(self, fake: Outputs) -> Tensor:
        """Return the generator's loss, a scalar.

        Args:
            fake: the discriminator's output for generated images, of any shape; or a sequence of several discriminators'.
        """
        if self.kind == "hinge":
            return _summed(lambda output: -output.mean(), fake)
        return _summed(self._real, fake)

    def discriminator(self, real: Outputs, fake: Outputs) -> Tensor:
        """Return the discriminator's loss, a scalar.

        Args:
            real, fake: its outputs for real and for generated images, of any shape; or sequences of several
                discriminators'.
        """
        return (_summed(self._real, real) + _summed(self._fake, fake)) / 2

    def _real(self, output: Tensor) -> Tensor:
        if self.kind == "vanilla":
            return F.binary_cross_entropy_with_logits(output, torch.ones_like(output))
        if self.kind == "least_squares":
            return F.mse_loss(output, torch.ones_like(output))
        return F.relu(1 - output).mean()

    def _fake(self, output: Tensor) -> Tensor:
        if self.kind == "vanilla":
            return F.binary_cross_entropy_with_logits(output, torch.zeros_like(output))
        if self.kind == "least_squares":
            return F.mse_loss(output, torch.zeros_like(output))
        return F.relu(1 + output).mean()


def _summed(loss: Callable[[Tensor], Tensor], outputs: Outputs) -> Tensor:
    # In full precision: under autocast the outputs are in half.
    each = [outputs] if isinstance(outputs, Tensor) else outputs
    return torch.stack([loss(output.float()) for output in each]).sum()
