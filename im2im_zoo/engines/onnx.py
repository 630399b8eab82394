"""Run ONNX weights with ONNX Runtime. Needs no torch and runs no code of the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import PRECISIONS, call_error

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


class OnnxEngine:
    """An ONNX Runtime session; with `tensorrt`, of which TensorRT runs what it can, and CUDA the rest."""

    weights_format = "onnx"

    def __init__(
        self,
        weights: Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
        tensorrt: bool = False,
    ) -> None:
        if precision not in (PRECISIONS if tensorrt else ("float32",)):
            raise PackageError(
                f"{weights} (onnx): ONNX Runtime runs the graph as it is, in float32; not in {precision}"
            )
        self.backend = "tensorrt" if tensorrt else "onnxruntime"
        self.device, self.precision = device, precision
        self._weights = weights
        self._session = _open_session(weights, device, threads, precision if tensorrt else None)
        self._names = [i.name for i in self._session.get_inputs()]
        self._types = [i.type for i in self._session.get_inputs()]

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`. Arrays are cast to the dtype that the graph declares."""
        if len(inputs) != len(self._names):
            raise PackageError(
                f"{self._weights} (onnx) takes {len(self._names)} inputs ({', '.join(self._names)}), "
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
            raise call_error(self._weights, "onnx", inputs, error) from error
        return [np.ascontiguousarray(o) for o in outputs]


def _open_session(weights: Path, device: str, threads: int | None, tensorrt: str | None) -> Any:
    """A session; `tensorrt` is the precision in which TensorRT runs it, None for no TensorRT."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # What fails is raised, and said by who called.
    options.log_severity_level = 4
    # The arena keeps the peak of every size that it saw; without it the memory goes back after each tile, and
    # the patterns of one size would be planned for again and again as border tiles differ.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(weights), options, providers=_providers(weights, device, tensorrt)
        )
    except PackageError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no public base but Exception
        raise PackageError(
            f"{weights}: the onnx weights cannot be loaded by ONNX Runtime {onnxruntime.__version__}: "
            f"{' '.join(str(error).split())[:600]}; the file may be damaged or newer than this ONNX Runtime"
        ) from error


def _providers(weights: Path, device: str, tensorrt: str | None) -> list[Any]:
    """ONNX Runtime's execution providers for a device, the preferred first, with their options."""
    import onnxruntime

    if device == "cpu":
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    wanted = "CUDAExecutionProvider" if tensorrt is None else "TensorrtExecutionProvider"
    if not device.startswith("cuda") or wanted not in available:
        raise PackageError(
            f"{weights} (onnx): device {device!r} is not available to ONNX Runtime, which has "
            f"{', '.join(available)}; install onnxruntime-gpu, use the torchscript weights, or device cpu"
        )
    index = int(device.partition(":")[2] or 0)
    # Numbers of 10 bits of TF32 are no float32, and what runs again after a crash has to give the same bits.
    cuda = {"device_id": index, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    found: list[Any] = [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
    if tensorrt is None:
        return found
    numbers = {"trt_fp16_enable": tensorrt == "float16", "trt_bf16_enable": tensorrt == "bfloat16"}
    return [("TensorrtExecutionProvider", {"device_id": index, **numbers}), *found]
