"""Comparison of two models, or of two weight formats of one, on an image of any size: differences, correlation, objects."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError, PackageError
from im2im_zoo.evaluation.contingency import overlaps_of, parts_of
from im2im_zoo.evaluation.instance import match
from im2im_zoo.evaluation.painting import RGB
from im2im_zoo.evaluation.panels import Kind, Panel, render_panel
from im2im_zoo.images import open_image
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.package.reference import Tolerance, tolerance
from im2im_zoo.runtime.predictor import Model
from im2im_zoo.runtime.settings import Resources, Settings
from im2im_zoo.workflows.models import open_model

# Voxels of a picture along y and x; of larger images the centre is shown.
_WINDOW = 1024
_MARGIN = 12
# Called with the name of the side, the stage, the finished voxels and all.
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        source: a package, as for `open_model`.
        weights: its only weights format (default: the fastest).
    """

    source: str | Path
    weights: str | None = None

    @property
    def title(self) -> str:
        """Name in messages and pictures."""
        return f"{self.source}" + (f" ({self.weights})" if self.weights else "")


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """Difference of one output; values that are not finite in either are left out and counted.

    Attributes:
        output: its id.
        shape: sizes by axis.
        voxels: number of compared values.
        largest, mean: absolute differences.
        correlation: of Pearson; None if an output is constant.
        above_tolerance: share of the values that differ by more than the tolerance, of those that are not finite in one only, too.
        absolute_tolerance, relative_tolerance: a value of B may differ by `absolute + relative * |A|`.
        not_finite: number of values that are NaN or infinite in A or B.
    """

    output: str
    shape: Mapping[str, int]
    voxels: int
    largest: float
    mean: float
    correlation: float | None
    above_tolerance: float
    absolute_tolerance: float
    relative_tolerance: float
    not_finite: int


@dataclass(frozen=True, slots=True)
class LabelDifference:
    """Difference of two label images: AP at IoU 0.5, TP / (TP + FP + FN), which is 1 for equal objects."""

    ap_50: float
    objects_a: int
    objects_b: int
    matched: int


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Comparison of two sides on one image.

    Attributes:
        a, b: titles of the sides.
        outputs: differences of the outputs that both have.
        labels: difference of the instance labels, if both make them.
        only: outputs that only one side has, or that are not images.
        picture: A, B and their difference, (height, width, 3); None if not asked for.
    """

    a: str
    b: str
    image: str
    outputs: tuple[OutputDifference, ...]
    labels: LabelDifference | None = None
    only: tuple[str, ...] = ()
    picture: RGB | None = field(default=None, repr=False)

    def plain(self) -> dict[str, Any]:
        """Return the comparison as JSON values, without the picture."""
        content = asdict(replace(self, picture=None))
        del content["picture"]
        return content


@dataclass(frozen=True, slots=True)
class _Predicted:
    """Outputs of one side by id, lazy, and its labels."""

    images: Mapping[str, xr.DataArray]
    tables: tuple[str, ...]
    labels: xr.DataArray | None
    tolerances: Mapping[str, Tolerance]


def compare_models(
    a: Side,
    b: Side,
    image: str | Path,
    *,
    axes: str | None = None,
    absolute: float | None = None,
    picture: bool = False,
    allow_code: bool = False,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> ModelComparison:
    """Predict an image with two models, as `predict` does, and compare the outputs block by block.

    The predictions are written into a temporary folder, so the image may be larger than the memory.

    Args:
        a, b: packages with their weights formats; the differences are those of B from A.
        image: path of the image.
        axes: of its file, if it does not name them.
        absolute: tolerance (default: the reproducibility tolerance that A declares).
        picture: whether to draw A, B and the difference.
        allow_code: whether Python of the packages may run.
        resources: memory, processes and devices.
        progress: called with "A" or "B", the stage, the finished voxels and their number.

    Raises:
        EvaluationError: no output is in both, or the sizes differ.
        PackageError, ImageError, AxesError, PlanError: a prediction is impossible.

    Example:
        >>> sides = Side("nuclei_2d", "onnx"), Side("nuclei_2d", "torchscript")
        >>> compare_models(*sides, "image.tif", axes="yx").outputs[0].largest  # doctest: +SKIP
        1.2e-07
    """
    with tempfile.TemporaryDirectory(prefix="im2im_zoo_compare_") as temporary:
        predicted = []
        for name, side in (("A", a), ("B", b)):
            with open_model(side.source, allow_code=allow_code) as model:
                output = Path(temporary) / f"{name.lower()}.ome.zarr"
                predicted.append(_predict(model, side, image, axes, output, resources, progress, name))
        return _compare(a, b, str(image), predicted[0], predicted[1], absolute, picture)


def _predict(
    model: Model,
    side: Side,
    image: str | Path,
    axes: str | None,
    output: Path,
    resources: Resources | None,
    progress: Progress | None,
    name: str,
) -> _Predicted:
    if side.weights is not None:
        model.package.weights_entry(side.weights)  # names the formats that there are
    report = None if progress is None else lambda stage, done, total: progress(name, stage, done, total)
    result = model.predict(
        image,
        output,
        axes=axes,
        settings=Settings(weights=side.weights),
        resources=resources,
        progress=report,
    )
    known = [str(tensor.id) for tensor in model.package.outputs]
    paths = dict(zip(known, result.outputs, strict=False))
    tables = tuple(key for key, path in paths.items() if path.suffix.lower() == ".npy")
    images = {
        key: open_image(path) for key, path in paths.items() if key not in tables and path != result.labels
    }
    labels = None if result.labels is None else open_image(result.labels)
    formats = side.weights or model.package.weights[0]
    return _Predicted(images, tables, labels, {key: tolerance(model.package, formats, key) for key in images})


def _compare(
    a: Side, b: Side, image: str, first: _Predicted, second: _Predicted, absolute: float | None, picture: bool
) -> ModelComparison:
    common = _common_outputs(first, second)
    has_labels = first.labels is not None and second.labels is not None
    if not common and not has_labels:
        names = [", ".join(side.images) or "none" for side in (first, second)]
        raise EvaluationError(f"{a.title} and {b.title} have no output in common: {names[0]}; {names[1]}")
    outputs = []
    for key_a, key_b in common.items():
        allowed = first.tolerances[key_a] if absolute is None else Tolerance(0.0, absolute)
        outputs.append(_compare_images(key_a, first.images[key_a], second.images[key_b], allowed))
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = _compare_labels(first.labels, second.labels)
    only = {*first.images, *second.images, *first.tables, *second.tables} - {*common, *common.values()}
    drawn = _draw(a, b, first, second, common) if picture else None
    return ModelComparison(a.title, b.title, image, tuple(outputs), labels, tuple(sorted(only)), drawn)


def _common_outputs(first: _Predicted, second: _Predicted) -> dict[str, str]:
    """Return pairs of output ids: equal ones, or the only outputs of both, whatever their names."""
    if len(first.images) == len(second.images) == 1:
        return {next(iter(first.images)): next(iter(second.images))}
    return {key: key for key in first.images if key in second.images}


def _compare_images(output: str, a: xr.DataArray, b: xr.DataArray, allowed: Tolerance) -> OutputDifference:
    b = _aligned(output, a, b)
    sums = _Sums(allowed)
    for region in parts_of((a, b)):
        sums.add(a.isel(region).to_numpy().astype(np.float64), b.isel(region).to_numpy().astype(np.float64))
    return OutputDifference(
        output,
        {str(axis): int(size) for axis, size in a.sizes.items()},
        sums.count,
        sums.largest,
        sums.total / sums.count if sums.count else float("nan"),
        sums.correlation(),
        sums.above / max(1, a.size),
        allowed.absolute,
        allowed.relative,
        sums.not_finite,
    )


class _Sums:
    """Sums over all values of two images, added block by block."""

    def __init__(self, allowed: Tolerance) -> None:
        self.count = self.above = self.not_finite = 0
        self.largest = self.total = 0.0
        self._allowed = allowed
        # Moments about the first means, so that large offsets do not cancel digits.
        self._shift: tuple[float, float] | None = None
        self._moments = np.zeros(5)

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Add a block."""
        finite = np.isfinite(a) & np.isfinite(b)
        # NaN in both, or the same infinity, is no difference.
        same = (np.isnan(a) & np.isnan(b)) | (a == b)
        self.not_finite += int((~finite).sum())
        self.above += int((~finite & ~same).sum())
        a, b = a[finite], b[finite]
        if not a.size:
            return
        difference = np.abs(b - a)
        self.count += a.size
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum())
        self.above += int((difference > self._allowed.absolute + self._allowed.relative * np.abs(a)).sum())
        if self._shift is None:
            self._shift = float(a.mean()), float(b.mean())
        x, y = a - self._shift[0], b - self._shift[1]
        self._moments += (x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum())

    def correlation(self) -> float | None:
        """Return the correlation of Pearson; None if there is none."""
        if self.count < 2:
            return None
        sx, sy, sxx, syy, sxy = self._moments / self.count
        variances = sxx - sx * sx, syy - sy * sy
        if min(variances) <= 0:
            return None
        return float(np.clip((sxy - sx * sy) / np.sqrt(variances[0] * variances[1]), -1, 1))


def _compare_labels(a: xr.DataArray, b: xr.DataArray) -> LabelDifference:
    found = overlaps_of(_aligned(INSTANCES, a, b), a)
    matching = match(found, 0.5)
    total = matching.tp + matching.fp + matching.fn
    return LabelDifference(
        matching.tp / total if total else 1.0, len(found.ids_t), len(found.ids_p), matching.tp
    )


def _aligned(output: str, a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """Return B with the axes of A in their order.

    Raises:
        EvaluationError: they have other axes or sizes.
    """
    if dict(a.sizes) != dict(b.sizes):
        raise EvaluationError(
            f"output {output}: A is {_sizes(a)}, B is {_sizes(b)}, so they cannot be compared; compare models with outputs of one "
            "size"
        )
    return b.transpose(*a.dims)


def _sizes(image: xr.DataArray) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in image.sizes.items())


def _draw(a: Side, b: Side, first: _Predicted, second: _Predicted, common: Mapping[str, str]) -> RGB:
    """Return A, B and their difference side by side: of the labels if there are any, else of the first output."""
    kinds: tuple[Kind, Kind] = ("intensity", "error")
    if first.labels is not None and second.labels is not None:
        one, other, kinds = first.labels, second.labels, ("labels", "matches")
    else:
        key_a, key_b = next(iter(common.items()))
        one, other = first.images[key_a], second.images[key_b]
    one, other = (_window(image).load() for image in (one, other.transpose(*one.dims)))
    return join_panels(_panels(a, b, one, other, kinds))


def _panels(
    a: Side, b: Side, one: xr.DataArray, other: xr.DataArray, kinds: tuple[Kind, Kind]
) -> list[Panel]:
    finite = one.to_numpy()[np.isfinite(one.to_numpy())]
    contrast = (float(finite.min()), float(finite.max())) if kinds[0] == "intensity" and finite.size else None
    return [
        Panel(f"A: {a.title}", one, kinds[0], contrast=contrast, view="middle"),
        Panel(f"B: {b.title}", other, kinds[0], contrast=contrast, view="middle"),
        Panel("B - A", other, kinds[1], target=one, view="middle"),
    ]


def _window(image: xr.DataArray) -> xr.DataArray:
    """Return the middle plane and the centre of an image, as far as a picture shows it."""
    if "z" in image.dims:
        image = image.isel(z=[image.sizes["z"] // 2])
    starts = {axis: max(0, (image.sizes[axis] - _WINDOW) // 2) for axis in ("y", "x")}
    return image.isel({axis: slice(start, start + _WINDOW) for axis, start in starts.items()})


def join_panels(panels: Sequence[Panel]) -> RGB:
    """Return panels side by side on white, each below its title."""
    from PIL import Image, ImageDraw

    drawn = [render_panel(panel) for panel in panels]
    height = max(len(d.rgb) for d in drawn) + 3 * _MARGIN
    width = sum(d.rgb.shape[1] + _MARGIN for d in drawn) + _MARGIN
    canvas = Image.new("RGB", (width, height), "white")
    text, left = ImageDraw.Draw(canvas), _MARGIN
    for d in drawn:
        room = d.rgb.shape[1]
        scale = re.search(r"full colour at (±\S+)", d.caption)
        title = d.title + (f", {scale[0]}".rstrip(".") if scale else "")
        while len(title) > 1 and text.textlength(title) > room:
            title = title[:-1]
        text.text((left, _MARGIN // 2), title, fill="black")
        canvas.paste(Image.fromarray(d.rgb), (left, 2 * _MARGIN))
        left += room + _MARGIN
    return np.asarray(canvas, dtype=np.uint8)


def sides_of(a: str | Path, b: str | Path | None, weights: Sequence[str]) -> tuple[Side, Side]:
    """Return the sides of a comparison: two packages, with no or one weights format each, or two formats of one package.

    Raises:
        PackageError: neither two packages nor two formats.
    """
    if b is None:
        if len(weights) != 2:
            raise PackageError(
                "one package needs two weights formats: add --weights onnx --weights torchscript, or a second package"
            )
        return Side(a, weights[0]), Side(a, weights[1])
    if len(weights) > 2:
        raise PackageError(
            f"there are {len(weights)} weights formats for two packages; give one for each, or none"
        )
    formats = [*weights, *weights][:2] if weights else [None, None]
    return Side(a, formats[0]), Side(b, formats[1])
