"""Metrics on held-out images: of packages, predicted as users predict, and of trivial methods.

A package is run by the runtime with the default settings of `predict`, into a temporary OME-Zarr, and compared with the
targets that training used, by `evaluation.evaluate`.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from im2im_zoo.data import ImagePair
from im2im_zoo.evaluation import Evaluation, baselines, evaluate, mean_evaluation
from im2im_zoo.images import open_image
from im2im_zoo.processing import fit
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.measured import find_scaled_back
from im2im_zoo.runtime import Model, PredictionResult, open_package_model

Method = Callable[[xr.DataArray, xr.DataArray], xr.DataArray]
Progress = Callable[[str, int, int], None]  # stage, voxels done, all voxels


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, and what is needed to preprocess their targets.

    Attributes:
        recipe: recipe that the network was trained with.
        samples: raw images; those without a target are predicted but not measured.
        root: folder of the sources of custom operations.
        allow_code: consent to run those that are not im2im_zoo's.
    """

    recipe: Recipe
    samples: Sequence[ImagePair]
    root: Path | None = None
    allow_code: bool = False

    @property
    def measurable(self) -> list[ImagePair]:
        """Samples with a target that a prediction can be compared with."""
        return [sample for sample in self.samples if sample.measurable]

    def target(self, sample: ImagePair) -> xr.DataArray:
        """Return the whole target as training saw it, without a standardisation that the output scales back.

        Instance labels stay labels, whatever maps the network learns.
        """
        if self.recipe.output.grouping is not None:
            return sample.target
        operations = self.recipe.target.preprocessing[: find_scaled_back(self.recipe)]
        return fit(operations, sample.target, root=self.root, allow_code=self.allow_code)(sample.target)


@dataclass(frozen=True)
class Comparison:
    """Two packages on the same images.

    Attributes:
        first, second: their mean metrics, None if no sample is measurable.
        difference: mean absolute difference of their predictions (maps, not labels), as a fraction of the standard
            deviation of the first's.
    """

    first: Evaluation | None
    second: Evaluation | None
    difference: float


def measure_package(package: Path, held_out: HeldOut, progress: Progress | None = None) -> Evaluation:
    """Return the mean metrics of a package on the measurable images.

    Args:
        package: folder of the package, whose Python code may run.
        held_out: the images; at least one is measurable.
        progress: of each prediction, see `runtime.predict`.

    Raises:
        PackageError, PlanError, ProcessingError, ImageError: an image cannot be predicted.
        EvaluationError: a prediction cannot be compared with its target, e.g. as it is not finite.
    """
    evaluations = []
    with _open_model(package) as model:
        for sample in held_out.measurable:
            with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as folder:
                output = Path(folder) / "prediction.ome.zarr"
                result = model.predict(sample.input, output, progress=progress)
                evaluations.append(_evaluated(result, sample, held_out))
    return mean_evaluation(evaluations)


def compare_packages(
    first: Path, second: Path, held_out: HeldOut, progress: Progress | None = None
) -> Comparison:
    """Predict all images with two packages, measure both and how far their predictions are apart; arguments as above."""
    evaluations: tuple[list[Evaluation], list[Evaluation]] = ([], [])
    differences = []
    with _open_model(first) as one, _open_model(second) as other:
        for sample in held_out.samples:
            with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as folder:
                results = [
                    model.predict(sample.input, Path(folder) / f"{number}.ome.zarr", progress=progress)
                    for number, model in enumerate((one, other))
                ]
                differences.append(_difference(*(open_image(result.output) for result in results)))
                if sample.measurable:
                    for made, result in zip(evaluations, results, strict=True):
                        made.append(_evaluated(result, sample, held_out))
    before, after = (mean_evaluation(made) if made else None for made in evaluations)
    return Comparison(before, after, sum(differences) / len(differences))


def baseline_evaluations(held_out: HeldOut) -> dict[str, Evaluation]:
    """Return the mean metrics of the trivial methods that make sense for the recipe's task, by their names."""
    methods: dict[str, Method] = {}
    if held_out.recipe.output.task == "semantic":
        methods["Otsu"] = lambda image, target: baselines.otsu_mask(image)
    elif held_out.recipe.output.task == "instance":
        methods["Otsu components"] = lambda image, target: baselines.otsu_instances(image)
        methods["Otsu watershed"] = lambda image, target: baselines.watershed_instances(image)
    else:
        methods["linear fit"] = baselines.linear_fit
        methods["Gaussian filter"] = partial(baselines.best_gaussian, fitted=True)
    return {name: _mean_of_method(method, held_out) for name, method in methods.items()}


def _open_model(package: Path) -> Model:
    # The package was written from here, so its Python may run. State dicts are still not chosen where there are other weights.
    # All libraries are loaded, as each format was run when it was written.
    model = open_package_model(package, allow_code=True)
    model.networks.in_process = True
    return model


def _evaluated(result: PredictionResult, sample: ImagePair, held_out: HeldOut) -> Evaluation:
    """Compare a written prediction, or its labels, with the target."""
    target = held_out.target(sample)
    if result.labels is not None:
        return evaluate(open_image(result.labels), target, "instance")
    # Channels go by their order: the target names its own, the package those of the recipe.
    prediction = open_image(result.output).drop_vars("channel", errors="ignore")
    if "channel" in prediction.dims:
        # Channels beyond the target's, e.g. a variance, have nothing to be compared with.
        prediction = prediction.isel(channel=slice(target.sizes["channel"]))
    return evaluate(prediction, target, held_out.recipe.output.task)


def _difference(first: xr.DataArray, second: xr.DataArray) -> float:
    one, other = (image.to_numpy().astype("float64") for image in (first, second))
    difference, spread = float(abs(other - one).mean()), float(one.std())
    if spread:
        return difference / spread
    return float("inf") if difference else 0.0


def _mean_of_method(method: Method, held_out: HeldOut) -> Evaluation:
    evaluations = []
    for sample in held_out.measurable:
        target = held_out.target(sample)
        prediction = method(_like_channels(sample.input, target), target)
        evaluations.append(evaluate(prediction, target, held_out.recipe.output.task))
    return mean_evaluation(evaluations)


def _like_channels(image: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    """Return the image with as many channels as the target: its middle channel repeated where the numbers differ."""
    count = target.sizes["channel"]
    if image.sizes["channel"] != count:
        image = image.isel(channel=[image.sizes["channel"] // 2] * count)
    return image.drop_vars("channel", errors="ignore")
