"""The weight formats that can be run, and the libraries that run them; no library is imported."""

import importlib.util
from collections.abc import Mapping

# The formats that `engines` can run, the preferred first, each with the libraries that run it. ONNX needs neither torch nor the
# package's code, TorchScript no code; a state dict runs the package's own Python.
_LIBRARIES = {
    "onnx": ("onnxruntime", "openvino"),
    "torchscript": ("torch",),
    "keras_v3": ("keras",),
    "keras_hdf5": ("keras",),
    "tensorflow_saved_model_bundle": ("tensorflow",),
    "pytorch_state_dict": ("torch",),
}
WEIGHTS_FORMATS = tuple(_LIBRARIES)


def find_library(weights_format: str) -> str | None:
    """Return the first installed library that runs a format; None if there is none."""
    return next((n for n in _LIBRARIES[weights_format] if importlib.util.find_spec(n) is not None), None)


def explain_no_weights(source: str, files: Mapping[str, str]) -> str:
    """Return a message that explains why none of a package's weights can run here.

    Args:
        source: the package's path, name or address.
        files: names of the weights' files, by format.
    """
    missing, needed, others = [], [], []
    for name, file in files.items():
        if name not in WEIGHTS_FORMATS:
            others.append(name)
        elif find_library(name) is None:
            needed.append(name)
        else:
            missing.append(file)
    if missing:
        return f"{source}: files are missing: {', '.join(missing)}; they are not downloaded, so download the complete package"
    if needed:
        library = _LIBRARIES[needed[0]][0]
        extra = "tensorflow" if library == "keras" else library
        return (
            f"{source}: needs {library}, which runs its {', '.join(needed)} weights: pip install "
            f"'im2im_zoo[{extra}]', or use a package with ONNX or TorchScript weights"
        )
    return (
        f"{source}: its weights are of the format {', '.join(others)}, which cannot be run; use a package with "
        f"{', '.join(WEIGHTS_FORMATS)}"
    )
