"""A model of the rules by which JDLL, which deepImageJ runs packages with, opens and runs a package of one input.

From the source of JDLL 0.6.3 (github.com/bioimage-io/JDLL, tag dl-modelrunner-0.6.3), whose rules here are those of 0.6.1,
which deepImageJ 3.1 has: `bioimageio/description/` (opening: ModelDescriptor, ModelDescriptorV05, TensorSpecV05, AxisV05),
`bioimageio/tiling/` (TileCalculator, TileMaker, TileGrid), `transformations/`, `model/java/BioimageIoModelJava`.

Verified on 2026-12-01 with JDLL 0.6.3 itself, compiled with imglib2: opening, tiles, both processings and merging are JDLL's own
there, the network was run by ONNX Runtime in between. Packages of 30 recipes, and nearly 100 changes of RDFs and images, gave the
same refusals and the same results. Only read: how engines give and take tensors (`Tensor.setData`, and OnnxInterface of
github.com/bioimage-io/onnx-java-interface, which takes them by the names of inputs and outputs in the ONNX file), and deepImageJ's
windows.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from program_rules import (
    Array,
    RefusalError,
    cut,
    logistic,
    open_network,
    read_rdf,
    receptive_field_is_global,
    without_nulls,
)

# A tile of more voxels is never cut: the loop that has to make it smaller changes its batch, and does not end.
LARGEST_TILE = 4096 * 4096 * 3
_STRINGS = ("format_version", "name", "description", "id", "license", "documentation", "git_repo", "type")


@dataclass
class Axis:
    """An axis: `letter` is what JDLL calls it; `scale` is the pixel size, which JDLL takes for a ratio of sizes."""

    letter: str
    least: int
    step: int
    scale: float
    offset: float
    halo: int
    reference: tuple[str, str] | None


@dataclass
class Tensor:
    """A tensor and its operations without `ensure_dtype`, which JDLL skips; `casts`: one of those casts to another type."""

    name: str
    axes: list[Axis]
    dtype: str
    operations: list[Mapping[str, Any]]
    casts: bool

    @property
    def order(self) -> str:
        """The letters of its axes."""
        return "".join(a.letter for a in self.axes)


@dataclass(frozen=True)
class Tiles:
    """Tiles of a tensor: their sizes, and where each starts in the image, which may be before it."""

    image: tuple[int, ...]
    size: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    starts: tuple[tuple[int, ...], ...]


@dataclass
class JdllModel:
    """A package that JDLL has opened."""

    folder: Path
    rdf: Mapping[str, Any]
    source: Tensor
    output: Tensor
    deviations: set[str] = field(default_factory=set)

    def predict(self, image: Array, weights_format: str = "onnx") -> Array:
        """Return what JDLL gives for an image in the axes of the input tensor.

        `deviations` names afterwards what it did otherwise than the format says, apart from the border of the halo's width.

        Raises:
            RefusalError: JDLL throws.
        """
        self.deviations.clear()
        before, after = self.tiles(image.shape)
        steps = [_operation(o) for o in (*self.source.operations, *self.output.operations)]
        count = len(self.source.operations)
        if self.output.dtype != "float32":
            raise RefusalError(
                "Trying to set an array as the backend of the Tensor with a different data type than the Tensor"
            )
        if receptive_field_is_global(self.rdf) and (len(before.starts) > 1 or before.size != before.image):
            self.deviations.add("global")
        if self.source.casts or self.output.casts:
            self.deviations.add("casts")
        prepared = image.astype(np.float32) if steps[:count] else image
        for step in steps[:count]:
            prepared = self._apply(step, prepared, self.source)
        result = self._run(prepared, before, after, weights_format)
        for step in steps[count:]:
            result = self._apply(step, result, self.output)
        return result

    def tiles(self, sizes: Sequence[int]) -> tuple[Tiles, Tiles]:
        """Return the tiles of the input and of the output for an image of given sizes, in the axes of the input tensor."""
        tile = [_tile_size(axis, int(n)) for axis, n in zip(self.source.axes, sizes, strict=True)]
        if math.prod(tile) > LARGEST_TILE:
            raise RefusalError("does not end")
        for axis, n, length in zip(self.source.axes, sizes, tile, strict=True):
            _check_tile(axis, int(n), length)
        pairs = [self._output_sizes(axis, sizes, tile) for axis in self.output.axes]
        for axis, (_, length) in zip(self.output.axes, pairs, strict=True):
            if length - 2 * axis.halo <= 0:
                raise RefusalError(
                    f"Input size too small, halo would be bigger than the image accross dimension '{axis.letter}'"
                )
        self._check_channels(sizes, tile)
        return (
            _grid(self.source.axes, [int(n) for n in sizes], tile),
            _grid(self.output.axes, [image for image, _ in pairs], [length for _, length in pairs]),
        )

    def _output_sizes(self, axis: Axis, sizes: Sequence[int], tile: Sequence[int]) -> tuple[int, int]:
        """Return the sizes of the image and of a tile along an axis of the output."""
        if axis.reference is not None:
            index = self.source.order.index(axis.reference[1])
            return tuple(int(n * axis.scale + 2 * axis.offset) for n in (sizes[index], tile[index]))  # type: ignore[return-value]
        if axis.step:
            raise RefusalError("Model specs too complex for JDLL")
        index = self.source.order.find(axis.letter)
        if index < 0 or axis.letter == "c":
            return axis.least, axis.least
        image = axis.least * sizes[index] / tile[index]
        if image != math.floor(image):
            raise RefusalError("Model specs too complex for JDLL")
        return int(image), axis.least

    def _check_channels(self, sizes: Sequence[int], tile: Sequence[int]) -> None:
        index = self.source.order.find("c")
        if index >= 0 and sizes[index] != tile[index]:
            raise RefusalError("Tiling cannot happen accross the channel dimension")

    def _run(self, image: Array, before: Tiles, after: Tiles, weights_format: str) -> Array:
        network = open_network(self.folder, self.rdf, weights_format)
        if network.names not in (None, (self.source.name, self.output.name)):
            raise RefusalError(f"Unknown input name, or no value of the output: {network.names}")
        result = np.zeros(after.image, np.float32)
        for start, goal in zip(before.starts, after.starts, strict=True):
            try:
                tile = network.run(cut(image, start, before.size).astype(np.float32))
            except Exception as error:
                raise RefusalError(f"the network: {error}") from error
            if tile.shape != after.size:
                raise RefusalError(
                    "Trying to set an array as the backend of the Tensor with a different shape than the Tensor"
                )
            inside = tuple(
                slice(low, n - high) for (low, high), n in zip(after.padding, after.size, strict=True)
            )
            place = tuple(
                slice(s + low, s + n - high)
                for s, (low, high), n in zip(goal, after.padding, after.size, strict=True)
            )
            result[place] = tile[inside]
        return result

    def _apply(self, step: "Step", array: Array, tensor: Tensor) -> Array:
        result, deviations = step(array, tensor)
        self.deviations.update(deviations)
        return result.astype(np.float32)


def open_model(folder: Path) -> JdllModel:
    """Open a package of format 0.5 with one input and one output.

    Raises:
        RefusalError: JDLL throws.
    """
    rdf = read_rdf(folder)
    for name in _STRINGS:
        if not isinstance(rdf.get(name), str | None):
            raise RefusalError(
                f"class java.util.LinkedHashMap cannot be cast to class java.lang.String ({name})"
            )
    version = rdf.get("format_version")
    if version is None:
        raise RefusalError("Incorrect format, missing 'format_version' field.")
    if not str(version).startswith("0.5"):
        raise RefusalError("JDLL only supports the Bioimage.io model specs 0.4 and 0.5.")
    source, output = _tensor(rdf["inputs"][0], "preprocessing"), _tensor(rdf["outputs"][0], "postprocessing")
    _spread_halo(source, output)
    config = rdf.get("config")
    named = "friend-0" if config is None else (config.get("bioimageio") or {}).get("nickname")
    if rdf.get("id") is None and named is None:
        raise RefusalError('Cannot invoke "String.length()" because "this.modelID" is null')
    return JdllModel(folder, rdf, source, output)


def _tensor(entry: Mapping[str, Any], side: str) -> Tensor:
    operations = [o for o in entry.get(side) or () if o.get("id") != "ensure_dtype"]
    dtypes = [o["kwargs"]["dtype"] for o in entry.get(side) or () if o.get("id") == "ensure_dtype"]
    data = entry.get("data")
    dtype = data.get("type", "float32") if isinstance(data, Mapping) else "float32"
    axes = [_axis(without_nulls(a)) for a in entry["axes"]]
    return Tensor(str(entry.get("id")), axes, str(dtype), operations, any(d != "float32" for d in dtypes))


def _axis(entry: Mapping[str, Any]) -> Axis:
    name, kind = entry.get("id"), entry.get("type")
    if kind is None:
        raise RefusalError('Cannot invoke "String.equals(Object)" because "this.type" is null')
    if name is None and kind == "space":
        raise RefusalError("Invalid axis configuration: When axis type is 'spaces', an 'id' must be defined")
    channels = entry.get("channel_names")
    is_channel = kind != "batch" and (name == "channel" or kind == "channel")
    if is_channel and channels is None:
        raise RefusalError('Cannot invoke "java.util.List.size()" because "this.channelNames" is null')
    letter = "b" if kind == "batch" else "c" if is_channel else str(name)
    size = entry.get("size")
    stated = size if isinstance(size, Mapping) else {} if size is None else {"min": size}
    reference = (str(stated["tensor_id"]), str(stated["axis_id"])) if "tensor_id" in stated else None
    least = len(channels) if is_channel and channels is not None else int(stated.get("min", 1))
    return Axis(
        letter,
        least,
        int(stated.get("step", 0)),
        float(entry.get("scale", 1.0)),
        float(stated.get("offset", 0)),
        int(entry.get("halo", 0)),
        reference,
    )


def _spread_halo(source: Tensor, output: Tensor) -> None:
    """Give the axes of the input the halo of the output, divided by the output's pixel size, up to the first that is larger."""
    for axis in output.axes:
        if not axis.halo:
            continue
        name = axis.letter if axis.reference is None else axis.reference[1]
        halo = axis.halo if axis.reference is None else (axis.halo + axis.offset) / axis.scale
        same = next((a for a in source.axes if a.letter == name), None)
        if axis.reference is not None and (same is None or same.halo > halo):
            return
        if same is not None and same.halo <= halo:
            same.halo = int(halo)
        if axis.reference is None:
            return


def _tile_size(axis: Axis, size: int) -> int:
    """Return the size of a tile: the largest multiple of the step that is no larger than the image with its halo."""
    if not axis.step:
        return size if axis.least == -1 else axis.least
    tile = (size + 2 * axis.halo) // axis.step * axis.step
    if tile > 3 * size and tile - axis.step >= axis.least:
        tile -= axis.step
    fitting = math.ceil(size / axis.step) * axis.step
    return fitting if tile > 3 * size and fitting >= axis.least else tile


def _check_tile(axis: Axis, size: int, tile: int) -> None:
    if 3 * size < tile:
        raise RefusalError(
            "The axes size introduced in any of the dimensions cannot be bigger than 3 times the image"
        )
    if axis.step and (tile - axis.least) % axis.step:
        raise RefusalError(
            f"Invalid tile size for axis '{axis.letter.upper()}'. Tile size for this axis should satisfy: "
            f"{axis.least} + n x {axis.step}"
        )


def _grid(axes: Sequence[Axis], image: Sequence[int], tile: Sequence[int]) -> Tiles:
    padding, counts, inner = [], [], []
    for axis, size, length in zip(axes, image, tile, strict=True):
        low = max(axis.halo, math.ceil((length - size) / 2))
        high = max(axis.halo, length - size - low)
        padding.append((low, high))
        counts.append(math.ceil(size / (length - 2 * axis.halo)))
        inner.append(length - low - high)
    starts = [
        tuple(
            min(i * n, size - n) - low
            for i, n, size, (low, _) in zip(index, inner, image, padding, strict=True)
        )
        for index in itertools.product(*map(range, counts))
    ]
    return Tiles(tuple(image), tuple(tile), tuple(padding), tuple(starts))


Step = Callable[[Array, Tensor], tuple[Array, set[str]]]


def _operation(entry: Mapping[str, Any]) -> Step:
    """Return the operation of an entry; a set of deviations comes with its result."""
    name, kwargs = str(entry["id"]), dict(entry.get("kwargs") or {})
    if name not in _OPERATIONS:
        raise RefusalError(f"Invalid method '{name}' in the specs file")
    make, allowed = _OPERATIONS[name]
    for key, value in kwargs.items():
        if key not in (*allowed, "mode"):
            raise RefusalError(
                f"Setter for argument '{key}' of the processing transformation '{name}' not found"
            )
        if value is None and key != "reference_tensor":
            raise RefusalError(f'Cannot invoke "Object.getClass()" because "{key}" is null')
    return make(name, kwargs)


def _number(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RefusalError(f"'{key}' parameter has to be either and instance of Integer or Double ({name})")
    return float(value)


def _needed(name: str, kwargs: Mapping[str, Any], key: str) -> Any:
    if key not in kwargs:
        raise RefusalError(
            f"Cannot execute {name} BioImage.io transformation because '{key}' parameter was not set."
        )
    return kwargs[key]


def _other_axes(kwargs: Mapping[str, Any], tensor: Tensor) -> str:
    """Return the letters of the axes that `axes` does not hold; none if there is no `axes`, or it holds none of the tensor's."""
    given = kwargs.get("axes", kwargs.get("axis"))
    if given is None:
        return ""
    names = [given] if isinstance(given, str) else given
    held = "".join("c" if n == "channel" else n for n in names).lower()
    other = "".join(letter for letter in tensor.order if letter.lower() not in held)
    return "" if other == tensor.order else other


def _planes(array: Array, tensor: Tensor, other: str) -> Iterator[tuple[Any, ...]]:
    """Yield an index for each combination of positions along the other axes, the first axis fastest."""
    at = [tensor.order.index(letter) for letter in other]
    for point in itertools.product(*(range(array.shape[i]) for i in reversed(at))):
        index: list[Any] = [slice(None)] * array.ndim
        for i, position in zip(at, reversed(point), strict=True):
            index[i] = slice(position, position + 1)
        yield tuple(index)


def _binarize(name: str, kwargs: Mapping[str, Any]) -> Step:
    threshold = _number(name, "threshold", _needed(name, kwargs, "threshold"))

    def run(array: Array, tensor: Tensor) -> tuple[Array, set[str]]:
        return array >= threshold, {"at the threshold"} if np.any(array == threshold) else set()

    return run


def _clip(name: str, kwargs: Mapping[str, Any]) -> Step:
    low, high = (_number(name, key, _needed(name, kwargs, key)) for key in ("min", "max"))
    return lambda array, tensor: (np.clip(array.astype(np.float64), low, high), set())


def _sigmoid(name: str, kwargs: Mapping[str, Any]) -> Step:
    return lambda array, tensor: (logistic(array), set())


def _scale_linear(name: str, kwargs: Mapping[str, Any]) -> Step:
    gain, offset = kwargs.get("gain", 1.0), kwargs.get("offset", 0.0)
    for key, value in (("gain", gain), ("offset", offset)):
        if not isinstance(value, list):
            _number(name, key, value)

    def run(array: Array, tensor: Tensor) -> tuple[Array, set[str]]:
        if isinstance(offset, list) and "axes" not in kwargs and "axis" not in kwargs:
            raise RefusalError(
                "If 'offset' and 'gain' are provided as arrays, the corresponding 'axes' argument"
            )
        whole = not _other_axes(kwargs, tensor)
        factor, summand = _first(gain, 1.0, whole), _first(offset, 0.0, whole)
        wrong = any(isinstance(v, list) and (whole or len({*v}) > 1) for v in (gain, offset))
        return array.astype(np.float64) * factor + summand, {"gains of channels"} if wrong else set()

    return run


def _first(value: Any, default: float, whole: bool) -> float:
    """Return the number that is taken for all channels: the first of a list, in float32, or none of it for the whole tensor."""
    if whole:
        return default if isinstance(value, list) else float(value)
    return float(np.float32(value[0] if isinstance(value, list) else value))


def _scale_range(name: str, kwargs: Mapping[str, Any]) -> Step:
    low, high = (
        _number(name, key, kwargs[key]) / 100 if key in kwargs else float(default)
        for key, default in (("min_percentile", 0), ("max_percentile", 100))
    )
    eps = _number(name, "eps", kwargs.get("eps", 1e-6))

    def run(array: Array, tensor: Tensor) -> tuple[Array, set[str]]:
        result = array.astype(np.float64)
        for index in _planes(array, tensor, _other_axes(kwargs, tensor)):
            values = np.sort(result[index], axis=None)
            bottom, top = (values[min(int(len(values) * p), len(values) - 1)] for p in (low, high))
            result[index] = (result[index] - bottom) / (top - bottom + eps)
        return result, {"percentiles", *(["reference tensor"] if "reference_tensor" in kwargs else [])}

    return run


def _zero_mean(name: str, kwargs: Mapping[str, Any]) -> Step:
    eps = _number(name, "eps", kwargs.get("eps", 1e-6))

    def run(array: Array, tensor: Tensor) -> tuple[Array, set[str]]:
        planes = list(_planes(array, tensor, _other_axes(kwargs, tensor)))
        result = array.astype(np.float64)
        for index in planes:
            # Of one plane, but it changes all of them, one time after the other.
            mean, std = np.float32(result[index].mean()), np.float32(result[index].std())
            result = ((result - mean) / (float(std) + eps)).astype(np.float32).astype(np.float64)
        return result, {"statistics of channels"} if len(planes) > 1 else set()

    return run


def _fixed_zero_mean(name: str, kwargs: Mapping[str, Any]) -> Step:
    mean, std = (_needed(name, kwargs, key) for key in ("mean", "std"))
    if isinstance(mean, list) or isinstance(std, list):
        # It is thrown once there is a tensor, but for each in which the channel is not the first axis.
        raise RefusalError("Index 1 out of bounds for length 1")
    mean, std = _number(name, "mean", mean), _number(name, "std", std)
    eps = _number(name, "eps", kwargs.get("eps", 1e-6))
    found = {"eps"} if eps / std > 1e-4 else set()
    return lambda array, tensor: ((array.astype(np.float64) - mean) / (std + eps), found)


_OPERATIONS: Mapping[str, tuple[Callable[[str, Mapping[str, Any]], Step], tuple[str, ...]]] = {
    "binarize": (_binarize, ("threshold", "eps")),
    "clip": (_clip, ("min", "max", "eps")),
    "fixed_zero_mean_unit_variance": (_fixed_zero_mean, ("mean", "std", "axes", "axis", "eps")),
    "scale_linear": (_scale_linear, ("gain", "offset", "axes", "axis", "eps")),
    "scale_range": (
        _scale_range,
        ("min_percentile", "max_percentile", "axes", "axis", "eps", "reference_tensor", "tensor_name"),
    ),
    "sigmoid": (_sigmoid, ()),
    "zero_mean_unit_variance": (_zero_mean, ("mean", "std", "axes", "axis", "eps")),
}
