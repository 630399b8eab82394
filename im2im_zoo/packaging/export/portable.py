"""Models for programs without custom operations: values that these measure on each image are fixed.

    centre normalisation    becomes `fixed_zero_mean_unit_variance`, with the training images' average
    Macenko normalisation   becomes pointwise arithmetic in the network's graph, with their average stains, and so does
                            everything between it and the network

The average image: the mean of means, the root of the mean variance (within images, not between them), the mean of the
stains' directions and of their maxima. The caller measures the loss of quality; `PortableLoss.check` limits it.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.packaging.export.plain_values import rounded
from im2im_zoo.processing import Operation, Pipeline, fit
from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation
from im2im_zoo.processing.custom.macenko import macenko
from im2im_zoo.processing.custom_code import our_operation
from im2im_zoo.processing.operations import requirements
from im2im_zoo.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

# Metrics where less is better, and counts of objects, which are not compared.
_ERRORS = ("mse", "mae", "nrmse")
_COUNTS = ("tp@", "fp@", "fn@", "objects_")
LARGEST_LOSS = 0.05

# Operations that are (x - shift) / scale for each channel.
_LINEAR = ("fixed_zero_mean_unit_variance", "scale_linear", "scale_range", "zero_mean_unit_variance")
_SMALLEST_STD = 1e-6  # of the spec

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Portable:
    """Portable form of a trained model.

    Attributes:
        network: the network, with operations added in front of it.
        recipe: the recipe, with the remaining preprocessing, without custom operations.
        fixed: a sentence for each operation that was replaced; empty if there was none.
    """

    network: "nn.Module"
    recipe: Recipe
    fixed: tuple[str, ...]

    def record(self, loss: "PortableLoss") -> dict[str, Any]:
        """Return the content of `config.im2im_zoo.portable` in the RDF."""
        return {
            "fixed": list(self.fixed),
            "original_figures": {k: rounded(v) for k, v in loss.original.items()},
            "figures": {k: rounded(v) for k, v in loss.portable.items()},
            "difference": rounded(loss.difference),
        }


@dataclass(frozen=True)
class PortableLoss:
    """Loss of quality of a portable model on held-out images.

    Attributes:
        original, portable: metrics by name.
        difference: mean absolute difference of the predictions, as a fraction of their standard deviation.
    """

    original: Mapping[str, float]
    portable: Mapping[str, float]
    difference: float

    def relative_losses(self) -> dict[str, float]:
        """Return the relative loss of each metric that is worse; infinite for one that is no longer defined."""
        lost = {}
        for name, before in self.original.items():
            after = self.portable.get(name, float("nan"))
            if name.startswith(_COUNTS) or before == after or not np.isfinite(before):
                continue
            change = (after - before if name in _ERRORS else before - after) / abs(before or 1.0)
            if not change <= 0:
                lost[name] = change if np.isfinite(change) else float("inf")
        return lost

    def check(self) -> None:
        """Raise if the loss is too large.

        Raises:
            PackageError: a figure is worse by more than `LARGEST_LOSS` of its value; the message has all of them.
        """
        too_much = {name: loss for name, loss in self.relative_losses().items() if loss > LARGEST_LOSS}
        if not too_much:
            return
        lines = [
            f"  {name}: {self.original[name]:.4g} as trained, {self.portable.get(name, float('nan')):.4g} portable"
            for name in self.original
        ]
        raise PackageError(
            f"the portable model would lose too much on the held-out images: {', '.join(too_much)} worse by more than "
            f"{LARGEST_LOSS:.0%} of the value (predictions differ by {self.difference:.2g} of their standard "
            "deviation):\n"
            + "\n".join(lines)
            + "\nThe images differ too much for one fixed normalisation: export without "
            "--portable, or train with one that the format has"
        )


def make_portable(network: "nn.Module", recipe: Recipe, images: Sequence[xr.DataArray]) -> Portable:
    """Fix what custom operations in front of the network measure of each image.

    Args:
        network: trained.
        recipe: that it was trained with.
        images: those that it was trained on, raw; each is read whole.
    Raises:
        PackageError: an operation that cannot be fixed, or images that there is nothing to measure of.
    """
    behind = [o for o in recipe.output.postprocessing if o.id == "custom"]
    if behind:
        raise PackageError(
            f"the custom operation {behind[0].callable!r} behind the network cannot be made portable: take it out of "
            "output.postprocessing, and run it on the output yourself"
        )
    work = _Work(recipe, images)
    for number, operation in enumerate(recipe.input.preprocessing):
        try:
            work.convert(number, operation)
        except ProcessingError as error:
            raise PackageError(f"input.preprocessing.{number}: {error}") from error
    ready = recipe.input.model_copy(update={"preprocessing": tuple(work.before)})
    made = Portable(network, recipe.model_copy(update={"input": ready}), tuple(work.fixed))
    if not work.graph:
        return made
    from torch import nn

    return replace(made, network=nn.Sequential(*work.graph, copy.deepcopy(network).cpu()).eval())


@dataclass
class _Work:
    """The operations so far: those that stay `before` the network, those in its `graph`, and what was `fixed`."""

    recipe: Recipe
    images: Sequence[xr.DataArray]
    before: list[Operation] = field(default_factory=list)
    graph: "list[nn.Module]" = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    def convert(self, number: int, operation: Operation) -> None:
        """Convert one operation, after those before it."""
        if operation.id != "custom":
            if self.graph:
                self.graph += self._pointwise(number, operation)
            else:
                self.before.append(operation)
            return
        ours = str(operation.source).startswith("im2im_zoo/") and our_operation(operation, None)
        if ours == "centre_normalisation" and not self.graph:
            self._fix_centre(number, operation)
        elif ours == "macenko" and not self.graph:
            self._fix_stains(number, operation)
        else:
            raise PackageError(
                f"input.preprocessing.{number}: the custom operation {operation.callable!r} of {operation.source} cannot be "
                "made portable: only im2im_zoo/centre_normalisation.py can, and one im2im_zoo/macenko.py behind it or alone"
            )

    def _tensors(self, number: int) -> Iterator[xr.DataArray]:
        """Yield the input of an operation for each image, by the operation's number."""
        for image in self.images:
            yield fit(self.recipe.input.preprocessing[:number], image)(image.compute())

    def _fix_centre(self, number: int, operation: spec.CustomProcessingDescr) -> None:
        measure = centre_normalisation(**operation.kwargs).statistics  # type: ignore[arg-type]
        found = [measure(tensor.to_numpy()) for tensor in self._tensors(number)]
        mean, std = _average([m.ravel() for m, _ in found], [s.ravel() for _, s in found])
        std = np.maximum(std, _SMALLEST_STD)
        kwargs: dict[str, Any] = {"mean": mean.tolist(), "std": std.tolist(), "axis": "channel"}
        if len(mean) == 1:
            kwargs = {"mean": float(mean[0]), "std": float(std[0])}
        described = {"id": "fixed_zero_mean_unit_variance", "kwargs": kwargs}
        self.before.append(spec.FixedZeroMeanUnitVarianceDescr.model_validate(described))
        self.fixed.append(
            f"centre_normalisation: mean {_text(mean)} and standard deviation {_text(std)}, the average of "
            f"{len(found)} training image(s), instead of each image's own."
        )

    def _fix_stains(self, number: int, operation: spec.CustomProcessingDescr) -> None:
        from im2im_zoo.packaging.export.portable_graph import StainExchange

        exchange = macenko(**operation.kwargs)  # type: ignore[arg-type]
        measured = (exchange.measure(t.to_numpy().reshape(3, -1)) for t in self._tensors(number))
        found = [f for f in measured if f is not None]
        if not found:
            raise PackageError(
                f"input.preprocessing.{number}: none of the training images has two stains, so there are none to fix"
            )
        stains = np.mean([s for s, _ in found], axis=0)
        stains /= np.linalg.norm(stains, axis=0)
        maxima = np.mean([m for _, m in found], axis=0)
        matrix = exchange.exchange(stains, maxima)
        self.graph.append(StainExchange(matrix, exchange.intensity, len(self.recipe.space)))
        self.fixed.append(
            f"macenko: stains {_text(stains[:, 0])} and {_text(stains[:, 1])} (red, green, blue) with maxima {_text(maxima)}, the "
            f"average of {len(found)} training image(s), instead of each image's own; in the network's graph."
        )

    def _pointwise(self, number: int, operation: Operation) -> "list[nn.Module]":
        """Return an operation that follows one in the graph as modules."""
        from im2im_zoo.networks.with_processing import Limits, Linear

        if operation.id == "ensure_dtype" and operation.kwargs.dtype == "float32":
            return []
        if operation.id == "clip" and not requirements(operation):
            low, high = operation.kwargs.min, operation.kwargs.max
            return [Limits(low, high)]
        if operation.id not in _LINEAR:
            raise PackageError(
                f"input.preprocessing.{number} ({operation.id}) cannot be put into the network's graph, where it has to be behind "
                "macenko: use a scale_linear, clip by numbers, or a normalisation"
            )
        operations = self.recipe.input.preprocessing[: number + 1]
        if not requirements(operation):
            gain, offset = _gain_and_offset(fit(operations, self.images[0]), self.images[0])
            return [Linear(gain.tolist(), offset.tolist())]
        found = [_gain_and_offset(fit(operations, i, dataset=self.images), i) for i in self.images]
        shift, scale = _average([-o / g for g, o in found], [1 / g for g, _ in found])
        self.fixed.append(
            f"{operation.id}: minus {_text(shift)}, over {_text(scale)}, the average of {len(found)} training image(s), "
            "instead of each image's own; in the network's graph."
        )
        return [Linear((1 / scale).tolist(), shift=shift.tolist())]


def _gain_and_offset(pipeline: Pipeline, image: xr.DataArray) -> tuple[_Numbers, _Numbers]:
    """Return gain and offset per channel of the last step, which is gain * x + offset."""
    channels = image.sizes["channel"]
    shape = [channels if axis == "channel" else 1 for axis in image.dims]
    probe = xr.DataArray(np.zeros(shape), dims=image.dims, coords={"channel": np.arange(channels)})
    at_zero, at_one = (pipeline.steps[-1](probe + x).to_numpy().ravel() for x in (0.0, 1.0))
    return at_one - at_zero, at_zero


def _average(shifts: Sequence[_Numbers], scales: Sequence[_Numbers]) -> tuple[_Numbers, _Numbers]:
    """Return the mean of the shifts and the root mean square of the scales."""
    return np.mean(shifts, axis=0), np.sqrt(np.mean(np.square(scales), axis=0))


def _text(numbers: _Numbers) -> str:
    return ", ".join(f"{n:.5g}" for n in numbers)
