"""A model of the rules by which QuPath opens and runs a package, as a pixel classifier.

From the sources of qupath-bioimageio-spec 0.2.1 (Resource, Model, `tensor/`), of QuPath 0.8.0-SNAPSHOT of 7 August 2026, whose
rules here are those of 0.7.0 (`opencv/ml/BioimageIoTools`, `opencv/ops/ImageOps`, `opencv/tools/OpenCVTools`,
`opencv/ml/PatchClassifierParams`), and of qupath-extension-djl 0.4.3 (DjlTools).

Verified on 2026-12-01 with qupath-bioimageio-spec 0.2.1 itself, compiled: packages of 30 recipes and 45 changes of an RDF were
opened or refused with the same refusals, axes, smallest sizes, halos and arguments of operations. Not verified, but only read: tiles,
OpenCV's operations and padding, and the engines.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from program_rules import (
    Array,
    Network,
    RefusalError,
    cut,
    logistic,
    open_network,
    read_rdf,
    receptive_field_is_global,
    without_nulls,
)

PREFERRED_TILE = 512
_REQUIRED = ("format_version", "authors", "description", "documentation", "license", "name", "inputs")
_BEFORE_0_5 = ("test_inputs", "test_outputs", "timestamp")


@dataclass
class QupathModel:
    """A package that QuPath has opened.

    Attributes:
        tile: size of its tiles along y and x.
        deviations: after a prediction, what it did otherwise than the format says, apart from the border of images.
    """

    folder: Path
    rdf: Mapping[str, Any]
    order: str
    tile: tuple[int, int]
    before: "list[Step]"
    after: "list[Step]"
    left_out: frozenset[str]
    per_image: bool
    halo: int
    deviations: set[str] = field(default_factory=set)

    def deviations_of(self, sizes: Sequence[int]) -> set[str]:
        """Return what it does otherwise than the format says on an image of a size along y and x, whatever its values are."""
        found = set(self.left_out)
        if any(n > tile for n, tile in zip(sizes, self.tile, strict=True)):
            found |= {"statistics of tiles"} if self.per_image else set()
            found |= {"tiles without overlap"} if self.halo or receptive_field_is_global(self.rdf) else set()
        if tuple(sizes) != self.tile and receptive_field_is_global(self.rdf):
            found.add("global")
        return found

    def predict(self, image: Array, weights_format: str = "torchscript") -> Array:
        """Return what QuPath gives for an image (batch, channel, y, x) or in the other axes of the input tensor.

        Raises:
            RefusalError: QuPath throws.
        """
        channels = self.order.index("c")
        planes = np.moveaxis(image, channels, -1).reshape(*self._space(image), image.shape[channels])
        self.deviations = self.deviations_of(planes.shape[:2])
        network = open_network(self.folder, self.rdf, weights_format)
        result: Array | None = None
        for place in _regions(planes.shape[:2], self.tile):
            tile = planes[place].astype(np.float32)
            for step in self.before:
                tile = step(tile).astype(np.float32)
            tile = self._predict_tile(network, tile)
            for step in self.after:
                tile = step(tile).astype(np.float32)
            if result is None:
                result = np.zeros((*planes.shape[:2], tile.shape[-1]), np.float32)
            result[place] = tile
        assert result is not None
        return self._in_order(result)

    def _space(self, image: Array) -> tuple[int, int]:
        return image.shape[self.order.index("y")], image.shape[self.order.index("x")]

    def _in_order(self, plane: Array) -> Array:
        """Return an image (y, x, channel) in the axes of the tensors, each other axis being of size 1."""
        letters = "yxc" + "".join(letter for letter in self.order if letter not in "yxc")
        full = plane.reshape(*plane.shape, *(1,) * (len(letters) - 3))
        return full.transpose([letters.index(letter) for letter in self.order])

    def _predict_tile(self, network: Network, tile: Array) -> Array:
        """Run the network on a tile (y, x, channel), padded by reflection to the size of a tile, both sides alike."""
        sizes = tile.shape[:2]
        low = [(wanted - n) // 2 for wanted, n in zip(self.tile, sizes, strict=True)]
        padded = cut(tile, [-n for n in low] + [0], (*self.tile, tile.shape[2]))
        try:
            output = network.run(self._in_order(padded))
        except Exception as error:
            raise RefusalError(f"the network: {error}") from error
        channels = self.order.index("c")
        planes = np.moveaxis(output, channels, -1)
        planes = planes.reshape(*(n for n in planes.shape[:-1] if n != 1), planes.shape[-1])
        if planes.shape[:2] != self.tile:
            raise RefusalError(f"the network gives {planes.shape[:2]} for a tile of {self.tile}")
        return planes[low[0] : low[0] + sizes[0], low[1] : low[1] + sizes[1]]


Step = Callable[[Array], Array]


def open_model(folder: Path) -> QupathModel:
    """Open a package of format 0.5.

    Raises:
        RefusalError: QuPath throws.
    """
    rdf = without_nulls(read_rdf(folder))
    _check_fields(rdf)
    operations = {side: _read_operations(rdf, side) for side in ("inputs", "outputs")}
    orders = [[_order(t["axes"]) for t in rdf[side]] for side in ("inputs", "outputs")]
    for found, kind in zip(orders, ("inputs", "outputs"), strict=True):
        if len(found) != 1:
            raise RefusalError(f"Only single {kind} currently supported! Model requires {len(found)}")
    (order,), (output_order,) = orders
    if "x" not in order or "y" not in order:
        raise RefusalError(f"Unknown input axes: {order}. Require at least X and Y")
    if "c" not in output_order:
        raise RefusalError(f"Unspecified channel axis in output axes: {output_order}")
    if "yx" not in order:
        raise RefusalError(f"Expected layout contains HW, but provided layout is {order}")
    built = {side: list(_build(found)) for side, found in operations.items()}
    smallest = dict(zip(order, map(_smallest, rdf["inputs"][0]["axes"]), strict=True))
    if smallest.get("z", 1) != 1:
        raise RefusalError(f"the network is given a depth of 1, it accepts {smallest['z']} or more")
    tile = (_tile_size(smallest["y"]), _tile_size(smallest["x"]))
    halos = [int(a.get("halo", 0)) for a in rdf["outputs"][0]["axes"]]
    left_out = {name for found in built.values() for step, name in found if step is None}
    left_out |= {name for found in operations.values() for name in _inexact(found)}
    per_image = any(o["id"] in ("scale_range", "zero_mean_unit_variance") for o in operations["inputs"])
    per_image |= any(o["id"] in ("scale_range", "zero_mean_unit_variance") for o in operations["outputs"])
    steps = {side: [step for step, _ in found if step is not None] for side, found in built.items()}
    return QupathModel(
        folder,
        rdf,
        order,
        tile,
        steps["inputs"],
        steps["outputs"],
        frozenset(left_out),
        per_image,
        max(halos, default=0),
    )


def _check_fields(rdf: Mapping[str, Any]) -> None:
    """Check fields in the order in which the reader comes to them."""
    for key in _REQUIRED:
        if rdf.get(key) is None:
            raise RefusalError(f"Required field {key} not found")
        if key == "documentation" and not isinstance(rdf[key], str):
            raise RefusalError("Expected STRING but was BEGIN_OBJECT (documentation)")
        if key == "name" and any(not isinstance(c, str) for c in rdf.get("covers") or ()):
            raise RefusalError("Expected STRING but was BEGIN_OBJECT (covers)")
    # The inputs are read before the version is looked at.
    _read_operations(rdf, "inputs")
    if not _is_newer_than_0_5_0(str(rdf["format_version"])):
        for key in _BEFORE_0_5:
            if rdf.get(key) is None:
                raise RefusalError(f"Required field {key} not found")
    if rdf.get("weights") is None:
        raise RefusalError("Required field weights not found")


def _is_newer_than_0_5_0(version: str) -> bool:
    numbers = [int(n) for n in re.findall(r"\d+", version)]
    return numbers > [0, 5, 0]


def _order(axes: Sequence[Mapping[str, Any]]) -> str:
    """Return the letters of axes."""
    kinds = {"batch": "b", "channel": "c", "time": "t", "index": "i"}
    letters = ""
    for axis in axes:
        kind = axis["type"]
        letter = kinds.get(kind) or str(axis["id"]).lower()
        if letter not in "bcitxyz":
            raise RefusalError(
                f"No enum constant qupath.bioimageio.spec.tensor.axes.AxisType.{letter.upper()}"
            )
        letters += letter
    return letters


def _smallest(axis: Mapping[str, Any]) -> int:
    if axis["type"] == "channel":
        return len(axis["channel_names"])
    size = axis.get("size", 1)
    return int(size["min"]) if isinstance(size, Mapping) else int(size)


def _tile_size(smallest: int) -> int:
    """Return the largest multiple of the smallest size up to the preferred one: the smallest size is taken for the step."""
    return max(PREFERRED_TILE // smallest, 1) * smallest


def _regions(sizes: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    for y in range(0, sizes[0], tile[0]):
        for x in range(0, sizes[1], tile[1]):
            yield slice(y, min(y + tile[0], sizes[0])), slice(x, min(x + tile[1], sizes[1]))


def _read_operations(rdf: Mapping[str, Any], side: str) -> list[Mapping[str, Any]]:
    """Return the operations of all tensors of a side, and refuse what the reader cannot parse."""
    key = "preprocessing" if side == "inputs" else "postprocessing"
    operations = [o for tensor in rdf[side] for o in tensor.get(key) or ()]
    for operation in operations:
        name, kwargs = operation["id"], operation.get("kwargs")
        if name in _BUILDERS and name != "sigmoid" and kwargs is None:
            raise RefusalError(
                'Cannot invoke "com.google.gson.JsonObject.has(String)" because its "kwargs" are null'
            )
        if name == "binarize":
            if kwargs.get("threshold") is None:
                raise RefusalError("Required field threshold not found")
            if isinstance(kwargs["threshold"], list):
                raise RefusalError("Expected NUMBER but was BEGIN_ARRAY")
        for argument in ("gain", "offset", "mean", "std"):
            value = (kwargs or {}).get(argument)
            if name in ("scale_linear", "zero_mean_unit_variance") and not isinstance(value, list | None):
                raise RefusalError(f"Can't parse data range from {value}")
    return operations


def _build(operations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Step | None, str]]:
    """Yield the operations; None for one that is left out, with a line in the log."""
    for operation in operations:
        name = operation["id"]
        make = _BUILDERS.get(name)
        if name == "ensure_dtype" and operation["kwargs"]["dtype"] == "float32":
            continue
        yield (None if make is None else make(operation.get("kwargs") or {})), name


def _inexact(operations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield names of arguments that are ignored."""
    for operation in operations:
        kwargs = operation.get("kwargs") or {}
        if operation["id"] == "clip" and {"min_percentile", "max_percentile"} & set(kwargs):
            yield "clip percentiles"
        if operation["id"] == "scale_range" and "reference_tensor" in kwargs:
            yield "reference tensor"
        letters = {str(a)[0] for a in kwargs.get("axes") or "yx"} - set("bc")
        if operation["id"] in ("scale_range", "zero_mean_unit_variance") and letters != set("yx"):
            yield "other axes"


def _channels_alone(kwargs: Mapping[str, Any]) -> bool:
    axes = kwargs.get("axes")
    if axes is None:
        raise RefusalError('Cannot read the array length because "array" is null (axes)')
    return "c" not in {str(a)[0] for a in axes}


def _each_channel(run: Step, alone: bool) -> Step:
    if not alone:
        return run
    return lambda array: np.stack([run(array[..., i]) for i in range(array.shape[-1])], axis=-1)


def _binarize(kwargs: Mapping[str, Any]) -> Step:
    return lambda array: array > np.float32(kwargs["threshold"])


def _clip(kwargs: Mapping[str, Any]) -> Step:
    return lambda array: np.clip(array, float(kwargs.get("min", -np.inf)), float(kwargs.get("max", np.inf)))


def _scale_linear(kwargs: Mapping[str, Any]) -> Step:
    gain, offset = (kwargs.get(key) for key in ("gain", "offset"))
    if gain is None or offset is None:
        raise RefusalError('Cannot invoke "double[].clone()" because "values" is null')

    def run(array: Array) -> Array:
        for values in (gain, offset):
            if len(values) not in (1, array.shape[-1]):
                raise RefusalError(f"Multiply requires {len(values)} channels, but Mat has {array.shape[-1]}")
        return (array.astype(np.float64) * gain).astype(np.float32) + np.asarray(offset, np.float64)

    return run


def _scale_range(kwargs: Mapping[str, Any]) -> Step:
    alone, eps = _channels_alone(kwargs), float(kwargs.get("eps", 1e-6))
    # The two defaults are the wrong way round there.
    ends = float(kwargs.get("min_percentile", 100.0)), float(kwargs.get("max_percentile", 0.0))
    if ends[0] == ends[1]:
        raise RefusalError("Percentile min and max values cannot be identical!")

    def run(array: Array) -> Array:
        low, high = np.percentile(array.astype(np.float64), ends)
        return (array.astype(np.float64) - low) / (high - low + eps)

    return _each_channel(run, alone)


def _sigmoid(kwargs: Mapping[str, Any]) -> Step:
    return logistic


def _zero_mean(kwargs: Mapping[str, Any]) -> Step:
    alone, eps = _channels_alone(kwargs), float(kwargs.get("eps", 1e-6))

    def run(array: Array) -> Array:
        values = array.astype(np.float64)
        return (values - values.mean()) / (values.std() + eps)

    return _each_channel(run, alone)


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], Step]] = {
    "binarize": _binarize,
    "clip": _clip,
    "scale_linear": _scale_linear,
    "scale_range": _scale_range,
    "sigmoid": _sigmoid,
    "zero_mean_unit_variance": _zero_mean,
}
