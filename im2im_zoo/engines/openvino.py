"""Run ONNX or TorchScript weights with OpenVINO on a CPU. Runs no Python of the package."""

import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import (
    PRECISIONS,
    BaseEngine,
    RunOptions,
    SafetyCheck,
    Weights,
    call_error,
    has_module,
    one_line,
)
from im2im_zoo.engines.onnx import check_onnx
from im2im_zoo.engines.torchscript import check_torchscript, freeze

# A plan has one size of tiles; probing and measuring have a few. A compiled network holds buffers of its size.
_MAX_COMPILED = 2
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoEngine(BaseEngine):
    """A network that is compiled for each shape of its inputs that it meets, which is faster than any shape at once."""

    backend = "openvino"
    formats: ClassVar[Mapping[str, SafetyCheck]] = {"onnx": check_onnx, "torchscript": check_torchscript}
    precisions = PRECISIONS
    rank = 20
    distributions = ("openvino",)
    extra = "openvino"

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        super().__init__(weights, options)
        self._core = import_openvino().Core()
        # Where the processor has bfloat16, OpenVINO would use it without being asked.
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _TYPES[options.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        if options.threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = options.threads
        self._network: Any = None
        if weights.format == "onnx":
            self._network = _read_onnx(self._core, weights.path)
        self._compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    @classmethod
    def is_installed(cls, weights_format: str) -> bool:
        """Return whether OpenVINO is installed, and torch, which reads TorchScript for it."""
        return super().is_installed(weights_format) and (weights_format == "onnx" or has_module("torch"))

    @property
    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """See `BaseEngine`; TorchScript does not state any. OpenVINO would run ONNX at other sizes, too, but not what its nodes assume."""
        if self._network is None:
            return None
        shapes = (i.get_partial_shape() for i in self._network.inputs)
        return tuple(
            () if shape.rank.is_dynamic else tuple(None if n.is_dynamic else n.get_length() for n in shape)
            for shape in shapes
        )

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`. Arrays are cast to the dtype that the graph declares."""
        given = [a for a in inputs if a is not None]
        if len(given) != len(inputs):
            raise PackageError(
                f"{self.weights}: OpenVINO cannot run a network without its optional inputs; "
                "use another backend"
            )
        try:
            request = self._request(given)
            kinds = [port.get_element_type().to_dtype() for port in request.model_inputs]
            feed = {
                i: np.ascontiguousarray(a, dtype=k) for i, (a, k) in enumerate(zip(given, kinds, strict=True))
            }
            request.infer(feed, share_inputs=True)
            # The request's own memory is used again by the next call.
            return [np.array(request.get_output_tensor(i).data) for i in range(len(request.model_outputs))]
        except PackageError:
            raise
        except Exception as error:  # its errors have no public base but Exception
            raise call_error(self.weights, inputs, error) from error

    def _request(self, inputs: Sequence[NDArray[Any]]) -> Any:
        key = tuple(a.shape for a in inputs)
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        while len(self._compiled) >= _MAX_COMPILED:
            self._compiled.popitem(last=False)
        network = self._with_shapes(inputs)
        request = self._core.compile_model(network, "CPU", self._options).create_infer_request()
        self._compiled[key] = request
        return request

    def _with_shapes(self, inputs: Sequence[NDArray[Any]]) -> Any:
        if self.weights_format == "torchscript":
            return _convert_torchscript(self.weights.path, inputs)
        network = self._network.clone()
        if len(network.inputs) != len(inputs):
            names = ", ".join(i.any_name for i in network.inputs)
            raise PackageError(
                f"{self.weights} takes {len(network.inputs)} inputs ({names}), but the RDF describes {len(inputs)}"
            )
        network.reshape(dict(zip(network.inputs, (list(a.shape) for a in inputs), strict=True)))
        return network


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which sends each import and conversion to its makers, from a new process."""
    # Python raises ImportError for a module that is None here; OpenVINO then does without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _read_onnx(core: Any, weights: Path) -> Any:
    try:
        return core.read_model(str(weights))
    except Exception as error:  # its errors have no public base but Exception
        raise PackageError(
            f"{weights}: the onnx weights cannot be loaded by OpenVINO: {one_line(error)}; use another backend"
        ) from error


def _convert_torchscript(weights: Path, inputs: Sequence[NDArray[Any]]) -> Any:
    """Convert a TorchScript network, for the shapes and types of the inputs."""
    import torch

    openvino = import_openvino()
    try:
        # It converts constants; attributes of a module are none before it is frozen.
        module = freeze(torch.jit.load(str(weights), map_location="cpu").eval())  # type: ignore[no-untyped-call]
        network = openvino.convert_model(
            module, example_input=tuple(torch.from_numpy(np.array(a)) for a in inputs)
        )
        network.reshape(dict(zip(network.inputs, (list(a.shape) for a in inputs), strict=True)))
    except Exception as error:  # the errors of its converter have no public base but Exception
        raise PackageError(
            f"{weights}: the torchscript weights cannot be converted by OpenVINO: {one_line(error, 300)}; use another "
            "backend"
        ) from error
    return network
