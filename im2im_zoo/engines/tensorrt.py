"""Run ONNX weights with TensorRT, by way of ONNX Runtime; CUDA runs the parts that TensorRT cannot."""

from typing import Any

from im2im_zoo.engines.base import PRECISIONS, has_module
from im2im_zoo.engines.onnx import OnnxEngine, device_index, installed_providers


class TensorRTEngine(OnnxEngine):
    """An ONNX Runtime session that prefers TensorRT."""

    backend = "tensorrt"
    devices = ("cuda",)
    precisions = PRECISIONS
    rank = 30

    @classmethod
    def is_installed(cls, weights_format: str) -> bool:
        """Return whether ONNX Runtime is installed; `is_available` looks for TensorRT in it."""
        return weights_format in cls.formats and has_module("onnxruntime")

    @classmethod
    def is_available(cls, weights_format: str, device: str = "cpu") -> bool:
        """Return whether ONNX Runtime is installed in a build with TensorRT."""
        return (
            weights_format in cls.formats
            and device.partition(":")[0] in cls.devices
            and "TensorrtExecutionProvider" in installed_providers()
        )

    def providers(self) -> list[Any]:
        """Return TensorRT with the precision, then the providers of ONNX Runtime."""
        numbers = {
            "trt_fp16_enable": self.precision == "float16",
            "trt_bf16_enable": self.precision == "bfloat16",
        }
        options = {"device_id": device_index(self.device), **numbers}
        return [("TensorrtExecutionProvider", options), *super().providers()]
