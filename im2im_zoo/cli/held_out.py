"""What a trained network, and what a trivial method, gets on held-out images. Prints nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    from torch import nn

    from im2im_zoo.data import ImagePair
    from im2im_zoo.evaluation import Evaluation
    from im2im_zoo.networks import Grid
    from im2im_zoo.recipe import Recipe


@dataclass(frozen=True)
class OwnCode:
    """Where the sources of custom operations are, and whether a person has allowed to run those that are not ours.

    `packages`: whose code a grouping may import, see `components.resolve_component`.
    """

    root: Path | None = None
    allow_code: bool = False
    packages: Collection[str] = ()


def held_out_evaluation(
    network: "nn.Module", recipe: "Recipe", samples: "Sequence[ImagePair]", grid: "Grid", code: OwnCode
) -> "Evaluation":
    """The mean figures of whole-image predictions, against the targets that training used."""
    from im2im_zoo.packaging import group_function, labels_of, predict_sample

    group = group_function(recipe, code.packages)

    def predict(sample: "ImagePair", target: xr.DataArray) -> xr.DataArray:
        whole = predict_sample(network, recipe, sample, grid=grid, root=code.root, allow_code=code.allow_code)
        if group is not None:
            return labels_of(group, whole)
        # Channels beyond the target's are not what the target says anything about, e.g. a variance.
        return whole.isel(channel=slice(target.sizes["channel"]))

    return _mean(recipe, samples, code, predict)


def baseline_evaluations(
    recipe: "Recipe", samples: "Sequence[ImagePair]", code: OwnCode
) -> "dict[str, Evaluation]":
    """The mean figures of the trivial methods that make sense for the recipe's task, by their names."""
    from im2im_zoo.evaluation import baselines

    methods: dict[str, Callable[[xr.DataArray, xr.DataArray], xr.DataArray]] = {}
    if recipe.output.task == "semantic":
        methods["Otsu"] = lambda image, target: baselines.otsu_mask(image)
    elif recipe.output.task == "instance":
        methods["Otsu components"] = lambda image, target: baselines.otsu_instances(image)
        methods["Otsu watershed"] = lambda image, target: baselines.watershed_instances(image)
    else:
        methods["linear fit"] = baselines.linear_fit
        methods["Gaussian filter"] = partial(baselines.best_gaussian, fitted=True)
    return {name: _mean(recipe, samples, code, _on_input(method)) for name, method in methods.items()}


def _on_input(
    method: Callable[[xr.DataArray, xr.DataArray], xr.DataArray],
) -> "Callable[[ImagePair, xr.DataArray], xr.DataArray]":
    return lambda sample, target: method(_like_channels(sample.input, target), target)


def prediction_difference(
    first: "tuple[nn.Module, Recipe]",
    second: "tuple[nn.Module, Recipe]",
    samples: "Sequence[ImagePair]",
    grid: "Grid",
) -> float:
    """The mean absolute difference of what two models predict, as a fraction of the standard deviation of the first's."""
    from im2im_zoo.packaging import predict_sample

    shares = []
    for sample in samples:
        one, other = (
            predict_sample(*model, sample, grid=grid).to_numpy().astype("float64")
            for model in (first, second)
        )
        difference, spread = abs(other - one).mean(), one.std()
        shares.append(difference / spread if spread else difference and float("inf"))
    return float(sum(shares) / len(shares))


def _processed_target(recipe: "Recipe", sample: "ImagePair", code: OwnCode) -> xr.DataArray:
    """The target image as training saw it, whole; labels that are grouped, as they are, whatever is learnt of them."""
    if recipe.output.grouping is not None:
        return sample.target
    from im2im_zoo.processing import fit

    operations, target = recipe.target.preprocessing, sample.target
    return fit(operations, target, root=code.root, allow_code=code.allow_code)(target)


def _mean(
    recipe: "Recipe",
    samples: "Sequence[ImagePair]",
    code: OwnCode,
    method: "Callable[[ImagePair, xr.DataArray], xr.DataArray]",
) -> "Evaluation":
    from im2im_zoo.evaluation import evaluate, mean_evaluation

    pairs = ((sample, _processed_target(recipe, sample, code)) for sample in samples)
    return mean_evaluation(
        [evaluate(method(sample, target), target, recipe.output.task) for sample, target in pairs]
    )


def _like_channels(image: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    """The image with as many channels as the target: its middle channel repeated where the numbers differ."""
    count = target.sizes["channel"]
    if image.sizes["channel"] != count:
        image = image.isel(channel=[image.sizes["channel"] // 2] * count)
    return image.drop_vars("channel", errors="ignore")
