"""What an engine is, and opening the one that a weight format needs. Arrays in, arrays out: no axes, no images."""

import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.vetting import vet_weights

# Which libraries run a format, the preferred first where nothing is measured.
BACKENDS = {
    "onnx": ("onnxruntime", "openvino", "tensorrt"),
    "torchscript": ("torch", "openvino"),
    "pytorch_state_dict": ("torch",),
    "keras_v3": ("keras",),
    "keras_hdf5": ("keras",),
    "tensorflow_saved_model_bundle": ("tensorflow",),
}
PRECISIONS = ("float32", "bfloat16", "float16")


@runtime_checkable
class Engine(Protocol):
    """A network that is loaded and ready to run, from any one thread at a time.

    Attributes:
        weights_format: of the weights.
        backend: the library that runs them.
        precision: of the numbers within the network; what goes in and comes out is not touched.
        device: where it runs.
    """

    weights_format: str
    backend: str
    precision: str
    device: str

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """Run the network once.

        Args:
            inputs: one array for each input tensor of the package, in its axis order; None for an optional one that is not
                given.

        Returns:
            One contiguous array for each output tensor, in its axis order.

        Raises:
            PackageError: the network refuses the arrays; the message names the weights and the shapes.
        """
        ...


def open_engine(
    weights_format: str,
    weights: Path,
    *,
    architecture: Any = None,
    root: Path | None = None,
    allow_code: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    backend: str | None = None,
    precision: str = "float32",
    description: Any = None,
) -> Engine:
    """Load a network from its weights.

    Args:
        weights_format: one of `BACKENDS`.
        weights: the file.
        architecture: the spec's description of the network's source, for `pytorch_state_dict`.
        root: folder of the package, in which the architecture's file lies and all that weights may name (default: that of the
            weights).
        allow_code: whether Python code of the package, or of a library that it names, may run.
        device: `cpu`, `cuda`, `cuda:<number>` or `mps`.
        threads: threads within one call (default: as the library chooses).
        backend: the library (default: the first that is installed, see `backends`).
        precision: of the network's numbers, one of `PRECISIONS`.
        description: the spec's whole description of the model, for Keras and TensorFlow.

    Raises:
        PackageError: a format that cannot be run, a file that cannot be loaded or would do more than compute (`vetting`), a
            device that is not there, or code that would have to run without consent.
    """
    if not weights.is_file():
        raise PackageError(
            f"the {weights_format} weights {weights} are missing; download the complete package"
        )
    if threads is not None and threads < 1:
        raise PackageError(f"threads is {threads}; give at least 1")
    if precision not in PRECISIONS:
        raise PackageError(f"precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    chosen = _backend(weights_format, weights, backend, device)
    vet_weights(weights_format, weights, root=root, allow_code=allow_code)
    if chosen == "openvino":
        from im2im_zoo.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(weights, weights_format, threads=threads, precision=precision)
    if chosen in ("onnxruntime", "tensorrt"):
        from im2im_zoo.engines.onnx import OnnxEngine

        return OnnxEngine(
            weights, device=device, threads=threads, precision=precision, tensorrt=chosen == "tensorrt"
        )
    if chosen in ("keras", "tensorflow"):
        from im2im_zoo.engines.core_adapter import CoreEngine

        return CoreEngine(
            weights, weights_format, description=description, backend=chosen, precision=precision
        )
    if weights_format == "torchscript":
        from im2im_zoo.engines.torchscript import TorchScriptEngine

        return TorchScriptEngine(weights, device=device, threads=threads, precision=precision)
    from im2im_zoo.engines.state_dict import StateDictEngine

    return StateDictEngine(
        weights,
        architecture=architecture,
        root=root or weights.parent,
        allow_code=allow_code,
        device=device,
        threads=threads,
        precision=precision,
    )


def backends(weights_format: str, device: str = "cpu") -> tuple[str, ...]:
    """The libraries that are installed here and run a format on a device, the preferred first."""
    return tuple(b for b in BACKENDS.get(weights_format, ()) if _runs_on(b, device))


def library_version(backend: str) -> str:
    """The version of the library that stands for a backend here; empty if it does not say."""
    # Its builds for other devices are distributions of other names.
    names = ("onnxruntime", "onnxruntime-gpu") if backend in ("onnxruntime", "tensorrt") else (backend,)
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def _runs_on(backend: str, device: str) -> bool:
    if backend == "tensorrt":  # by way of ONNX Runtime
        return device.startswith("cuda") and "TensorrtExecutionProvider" in _onnx_providers()
    if importlib.util.find_spec(backend) is None:
        return False
    if backend == "onnxruntime" and device != "cpu":  # it has its own build for GPUs
        return device.startswith("cuda") and "CUDAExecutionProvider" in _onnx_providers()
    return backend != "openvino" or device == "cpu"


def _onnx_providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found


def _backend(weights_format: str, weights: Path, backend: str | None, device: str) -> str:
    if weights_format not in BACKENDS:
        raise PackageError(
            f"{weights}: weights of the format {weights_format!r} cannot be run here; "
            f"there are engines for {', '.join(BACKENDS)}"
        )
    can = BACKENDS[weights_format]
    if backend is not None and backend not in can:
        raise PackageError(f"{weights_format} weights are run by {' or '.join(can)}, not by {backend!r}")
    installed = backends(weights_format, device)
    if backend is None and installed:
        return installed[0]
    if backend is not None and backend in installed:
        return backend
    wanted = backend or can[0]
    if wanted == "tensorrt" or importlib.util.find_spec(wanted) is not None:
        raise PackageError(f"{wanted} does not run on the device {device!r} here; use device cpu")
    extra = {"keras": "tensorflow"}.get(wanted, wanted)
    raise PackageError(f"{weights}: needs {wanted}: pip install 'im2im_zoo[{extra}]'")


def call_error(
    weights: Path, weights_format: str, inputs: Sequence[NDArray[Any] | None], error: Exception
) -> PackageError:
    """The error for a network that refuses its inputs, or runs out of memory on them."""
    shapes = ", ".join("nothing" if a is None else f"{a.shape} {a.dtype}" for a in inputs)
    # The cause is at the start or at the end of a long trace, depending on the library.
    text = " ".join(str(error).split())
    short = text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}"
    return PackageError(
        f"{weights} ({weights_format}): the network failed on input of shape {shapes}: {short}; the sizes that the "
        "RDF declares may not be those that the network takes, or the memory did not suffice (use a smaller tile)"
    )
