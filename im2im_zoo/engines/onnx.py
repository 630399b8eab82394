"""Run ONNX weights with ONNX Runtime. Needs no torch and runs no code of the package."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import (
    BaseEngine,
    RunOptions,
    SafetyCheck,
    Weights,
    call_error,
    has_module,
    one_line,
)
from im2im_zoo.engines.onnx_file import scan_onnx
from im2im_zoo.engines.zip_file import refusal, safety_check

# ONNX's names of tensor types and the dtypes that a session takes for them.
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(uint64)": np.uint64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@safety_check
def check_onnx(weights: Weights) -> None:
    """Refuse ONNX that takes weights from outside the package, or holds more than any memory would."""
    found = scan_onnx(weights.path)
    for name in found.external:
        target = (weights.path.parent / name).resolve()
        if not name or not target.is_relative_to(weights.root.resolve()):
            raise refusal(
                weights, f"it takes weights from {name!r}, which is outside the package; save it as one file"
            )
        if not target.is_file():
            raise refusal(weights, f"it takes weights from {name!r}, which is missing; save it as one file")
    if found.huge:
        raise refusal(weights, f"{found.huge[0]}, more than any memory would hold")


class OnnxEngine(BaseEngine):
    """An ONNX Runtime session. It runs the graph in the numbers that it was written in."""

    backend = "onnxruntime"
    formats: ClassVar[Mapping[str, SafetyCheck]] = {"onnx": check_onnx}
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    rank = 0
    # Its builds for other devices are distributions of other names.
    distributions = ("onnxruntime", "onnxruntime-gpu")
    extra = "onnxruntime"

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        super().__init__(weights, options)
        self._session = self._open_session(options)
        self._names = [i.name for i in self._session.get_inputs()]
        self._types = [i.type for i in self._session.get_inputs()]

    @property
    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """See `BaseEngine`."""
        shapes = (i.shape or () for i in self._session.get_inputs())
        # Lengths without a number are names, or None.
        return tuple(tuple(n if isinstance(n, int) and n > 0 else None for n in shape) for shape in shapes)

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`. Arrays are cast to the dtype that the graph declares."""
        if len(inputs) != len(self._names):
            raise PackageError(
                f"{self.weights} takes {len(self._names)} inputs ({', '.join(self._names)}), "
                f"but the RDF describes {len(inputs)}"
            )
        feed = {
            name: np.ascontiguousarray(array, dtype=_DTYPES.get(kind, array.dtype))
            for name, kind, array in zip(self._names, self._types, inputs, strict=True)
            if array is not None
        }
        try:
            outputs = self._session.run(None, feed)
        except Exception as error:  # onnxruntime's exceptions have no public base but Exception
            raise call_error(self.weights, inputs, error) from error
        return [np.ascontiguousarray(o) for o in outputs]

    @classmethod
    def is_available(cls, weights_format: str, device: str = "cpu") -> bool:
        """Return whether it is installed, in the build for the device."""
        if not super().is_available(weights_format, device):
            return False
        return device == "cpu" or "CUDAExecutionProvider" in installed_providers()

    def providers(self) -> list[Any]:
        """Return ONNX Runtime's execution providers for the device, the preferred first, with their options."""
        if self.device == "cpu":
            return ["CPUExecutionProvider"]
        # Numbers of 10 bits of TF32 are no float32, and what runs again after a crash has to give the same bits.
        cuda = {"device_id": device_index(self.device), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]

    def _open_session(self, run: RunOptions) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Failures are raised; the caller reports them.
        options.log_severity_level = 4
        # The arena keeps the peak of every size that it saw; without it the memory goes back after each tile, and
        # the patterns of one size would be planned for again and again as border tiles differ.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        if run.threads is not None:
            options.intra_op_num_threads = run.threads
        try:
            return onnxruntime.InferenceSession(str(self.weights.path), options, providers=self.providers())
        except Exception as error:  # onnxruntime's exceptions have no public base but Exception
            raise PackageError(
                f"{self.weights.path}: the onnx weights cannot be loaded by ONNX Runtime {onnxruntime.__version__}: "
                f"{one_line(error)}; the file may be damaged or newer than this ONNX Runtime"
            ) from error


def device_index(device: str) -> int:
    """Return the number of a GPU: 1 of `cuda:1`, 0 of `cuda`."""
    return int(device.partition(":")[2] or 0)


def installed_providers() -> list[str]:
    """Return the execution providers of the ONNX Runtime that is installed, if any."""
    if not has_module("onnxruntime"):
        return []
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found
