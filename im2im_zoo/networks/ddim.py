"""DDIM: sampler of a conditional diffusion model with a fixed number of deterministic steps, all in one graph.

The scheduler is written here: the DDIM of MONAI 1.6.1 steps to `t - T // n` but then asks the network for the next of
`linspace(T - 1, 0, n)`, which is another time unless there are many steps.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.timed_unet import TimedUNet

Schedule = Literal["cosine", "linear"]
Prediction = Literal["velocity", "noise", "image"]


def signal_levels(schedule: Schedule, times: int) -> Tensor:
    """Return the signal level alpha-bar at each time, the product of 1 - beta up to it; (times,) float64, falling.

    Args:
        schedule: "linear": betas from 1e-4 to 0.02, for 1000 times (Ho et al. 2020, arXiv:2006.11239), and scaled for the same
            noise at the end of other numbers of times; "cosine": alpha-bar is cos² ((t / T + s) / (1 + s) pi / 2) with s = 0.008 and betas of at most
            0.999 (Nichol and Dhariwal 2021, arXiv:2102.09672).
        times: T.
    """
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, times, dtype=torch.float64) * (1000 / times)
    else:
        part = torch.arange(times + 1, dtype=torch.float64) / times
        level = torch.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = 1 - level[1:] / level[:-1]
    return torch.cumprod(1 - betas.clamp(max=0.999), 0)


def ddim_step(noisy: Tensor, clean: Tensor, level: float, next_level: float) -> Tensor:
    """Return an image with less noise: equation 12 of Song et al. 2021 (arXiv:2010.02502) without its random part (eta 0).

    Args:
        noisy: at the signal level (alpha-bar) `level`, below 1.
        clean: its predicted image without noise, of the same shape.
        level, next_level: alpha-bar of `noisy` and of the result.
    """
    noise = (noisy - math.sqrt(level) * clean) / math.sqrt(1 - level)
    return math.sqrt(next_level) * clean + math.sqrt(1 - next_level) * noise


class DDIM(nn.Module):
    """Images sampled by a network that removes noise, given an image: SR3 and Palette (Saharia et al. 2021,
    arXiv:2104.07636, arXiv:2111.05826), sampled by DDIM (Song et al. 2021, arXiv:2010.02502).

    The output is the mean of `samples` results and, with `variance`, their variance. Each starts from other noise and takes
    `steps` steps at evenly spaced times. The noise is fixed, a part of the weights, and repeated every `period` voxels: a tile
    that begins at a multiple of the period sees the noise of the whole image. So the network takes multiples of the
    period only, and a halo of `steps` times the reach of the denoiser is exact, if that sees no further.

    Args:
        denoiser: maps (image of `channels` + those of the condition, times (batch,)) to `channels`.
        spatial_dims: 2 or 3.
        channels: of a result.
        steps: evaluations of the denoiser for each sample; the papers use 100 and more.
        samples: results that are averaged.
        period: of the noise, voxels along each space axis; a multiple of what the denoiser's sizes are multiples of.
        variance: whether the variance of the samples follows the mean, as further channels.
        prediction: output of the denoiser. In the papers it is the noise, which is uninformative where there is nothing else;
            the velocity (Salimans and Ho 2022, arXiv:2202.00512) or the image suit few steps.
        schedule: see `signal_levels`.
        times: at which it is trained.
        limits: of a result, to which each step is clamped; needed for `prediction` "noise".
        seed: of the noise.
    Raises:
        ComponentError: arguments out of range, or that contradict each other.
    """

    cite = Citation("Song et al. 2021: Denoising Diffusion Implicit Models", "10.48550/arXiv.2010.02502")

    noise: Tensor
    levels: Tensor

    def __init__(
        self,
        denoiser: nn.Module,
        spatial_dims: int,
        channels: int = 1,
        steps: int = 4,
        samples: int = 4,
        period: int | Sequence[int] = 16,
        variance: bool = False,
        prediction: Prediction = "velocity",
        schedule: Schedule = "cosine",
        times: int = 1000,
        limits: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if variance and samples < 2:
            raise ComponentError(f"variance needs several samples, not {samples}: set samples to 2 or more")
        if not 1 <= steps <= times:
            raise ComponentError(f"steps is {steps}; give 1 to {times}, the number of times")
        if prediction == "noise" and limits is None:
            raise ComponentError(
                "prediction: noise: where there is little else than noise the image is that divided by nearly 0; give "
                "limits, the least and the largest value of a target, or predict the velocity"
            )
        self.period = (period,) * spatial_dims if isinstance(period, int) else tuple(period)
        if len(self.period) != spatial_dims or min(self.period) < 1:
            raise ComponentError(f"period is {period}; give one number of voxels, or {spatial_dims} of them")
        self.denoiser = denoiser
        self.samples, self.variance, self.prediction = samples, variance, prediction
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))
        levels = signal_levels(schedule, times)
        self.register_buffer("levels", levels.float(), persistent=False)
        # From the end on, so that the first is all noise (Lin et al. 2024, arXiv:2305.08891).
        self.step_times = [round(times * (steps - i) / steps) - 1 for i in range(steps)]
        self.step_levels = [*(levels[t].item() for t in self.step_times), 1.0]
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", torch.randn(samples, channels, *self.period, generator=random))

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean, followed by the variance if wanted: (batch, channels or twice as many, (z,) y, x).

        Args:
            image: the condition, (batch, channel, (z,) y, x), its sizes multiples of the period.
        """
        samples = self.sample(image)
        mean = samples.mean(0)
        if not self.variance:
            return mean
        variance = ((samples - mean) ** 2).sum(0) / (self.samples - 1)
        return torch.cat([mean, variance], 1)

    def sample(self, image: Tensor) -> Tensor:
        """Return the result from each noise, (sample, batch, channels, (z,) y, x)."""
        space = [1] * len(self.period)
        condition = image.repeat(self.samples, 1, *space)
        noise = self.noise.unsqueeze(1).expand(-1, image.shape[0], *self.noise.shape[1:]).flatten(0, 1)
        # Sizes that are no multiple leave it too small to be concatenated with the image: any format refuses them.
        noisy = noise.repeat(1, 1, *(n // p for n, p in zip(image.shape[2:], self.period, strict=True)))
        for step, time in enumerate(self.step_times):
            level, next_level = self.step_levels[step : step + 2]
            times = torch.full((1,), time, device=image.device).expand(condition.shape[0])
            clean = self._clean(self.denoise(noisy, condition, times), noisy, level)
            noisy = ddim_step(noisy, clean, level, next_level)
        return noisy.reshape(self.samples, -1, *noisy.shape[1:])

    def denoise(self, noisy: Tensor, condition: Tensor, times: Tensor) -> Tensor:
        """Return the denoiser's output for a noisy result, (batch, channels, (z,) y, x), at the times (batch,)."""
        output: Tensor = self.denoiser(torch.cat([noisy, condition], 1), times)
        return output

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image with noise of some times, (batch, channels, (z,) y, x), and the denoiser's target.

        Args:
            clean, noise: (batch, channels, (z,) y, x).
            times: (batch,), 0 to the number of times less 1.
        """
        level = self.levels[times].reshape(-1, *[1] * (clean.ndim - 1))
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        if self.prediction == "image":
            return noisy, clean
        if self.prediction == "noise":
            return noisy, noise
        return noisy, level.sqrt() * noise - (1 - level).sqrt() * clean

    def _clean(self, output: Tensor, noisy: Tensor, level: float) -> Tensor:
        """Return the image without noise from the denoiser's output."""
        clean = output
        if self.prediction == "velocity":
            clean = math.sqrt(level) * noisy - math.sqrt(1 - level) * output
        if self.prediction == "noise":
            clean = (noisy - math.sqrt(1 - level) * output) / math.sqrt(level)
        return clean if self.limits is None else torch.clamp(clean, *self.limits)


def timed_unet_ddim(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    features: Sequence[int] = (32, 64, 128),
    steps: int = 4,
    samples: int = 4,
    period: int | Sequence[int] = 16,
    variance: bool = False,
    prediction: Prediction = "velocity",
    schedule: Schedule = "cosine",
    times: int = 1000,
    limits: Sequence[float] | None = None,
    seed: int = 0,
) -> DDIM:
    """Build a `DDIM` of a `TimedUNet` from plain values, so that a package can hold a state dict of it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image that is translated.
        out_channels: of a result, without variances.
        features: of the U-Net.
        steps, samples, period, variance, prediction, schedule, times, limits, seed: of `DDIM`.
    """
    unet = TimedUNet(spatial_dims, in_channels + out_channels, out_channels, features)
    return DDIM(
        unet,
        spatial_dims,
        out_channels,
        steps,
        samples,
        period,
        variance,
        prediction,
        schedule,
        times,
        limits,
        seed,
    )
