"""Parts that models of other programs share: refusals, running the weights of a package, tensors of the RDF as it is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A network: `run` takes its input, float32, and gives its output; ONNX names the two."""

    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    names: tuple[str, str] | None = None


class RefusalError(Exception):
    """A program cannot open or run a package; the message is the program's own."""


def read_rdf(folder: Path) -> dict[str, Any]:
    """Return the RDF of a package as YAML 1.1, which the programs read."""
    content: dict[str, Any] = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    return content


def without_nulls(value: Any) -> Any:
    """Return a value of an RDF without the keys of mappings that are null."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def open_network(folder: Path, rdf: Mapping[str, Any], weights_format: str) -> Network:
    """Load the network of a package with one input and one output."""
    file = folder / str(rdf["weights"][weights_format]["source"])
    if weights_format == "torchscript":
        return _torchscript(file)
    return _onnx(file)


def receptive_field_is_global(rdf: Mapping[str, Any]) -> bool:
    """Return whether each output value depends on the whole input, as packages of im2im_zoo write it."""
    ours = (rdf.get("config") or {}).get("im2im_zoo") or {}
    return bool(ours.get("receptive_field") == "global")


def symmetric_indices(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Return the positions start .. start + length of an axis of a size that is mirrored with its edge: `cba|abc|cba`."""
    position = np.arange(start, start + length) % (2 * size)
    return np.where(position < size, position, 2 * size - 1 - position)


def cut(image: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    """Return a block of an image that is mirrored beyond its borders; starts may be negative."""
    for axis, (start, length) in enumerate(zip(starts, sizes, strict=True)):
        image = image.take(symmetric_indices(start, length, image.shape[axis]), axis=axis)
    return image


def logistic(array: Array) -> Array:
    """Return 1 / (1 + exp(-x)) in float64."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-array.astype(np.float64)))


def _onnx(file: Path) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {names[0]: np.ascontiguousarray(array)})[0])

    return Network(run, names)


def _torchscript(file: Path) -> Network:
    import torch

    network = torch.jit.load(str(file)).eval()

    def run(array: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(np.ascontiguousarray(array))).numpy())

    return Network(run)
