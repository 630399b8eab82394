"""The weight formats that can be run, and the libraries that run them. It loads none of them."""

import importlib.util
from collections.abc import Mapping

# The formats that `engines` can run, the preferred first, and the libraries any of which runs them: ONNX runs without torch and
# without the package's code, TorchScript without its code; a state dict runs the package's own Python.
_LIBRARIES = {
    "onnx": ("onnxruntime", "openvino"),
    "torchscript": ("torch",),
    "keras_v3": ("keras",),
    "keras_hdf5": ("keras",),
    "tensorflow_saved_model_bundle": ("tensorflow",),
    "pytorch_state_dict": ("torch",),
}
WEIGHTS_FORMATS = tuple(_LIBRARIES)


def library_of(weights_format: str) -> str | None:
    """The first library that is installed here and runs a format."""
    return next((n for n in _LIBRARIES[weights_format] if importlib.util.find_spec(n) is not None), None)


def why_none_runs(source: str, files: Mapping[str, str]) -> str:
    """What a package lacks to be run here, in a sentence.

    Args:
        source: where the package is.
        files: of its weights, by format; none of those that can be run here is there.
    """
    missing, needed, others = [], [], []
    for name, file in files.items():
        if name not in WEIGHTS_FORMATS:
            others.append(name)
        elif library_of(name) is None:
            needed.append(name)
        else:
            missing.append(file)
    if missing:
        return (
            f"{source}: files are missing: {', '.join(missing)}; nothing is fetched from the network, so "
            "download the complete package"
        )
    if needed:
        library = _LIBRARIES[needed[0]][0]
        extra = "tensorflow" if library == "keras" else library
        return (
            f"{source}: needs {library}, which runs its {', '.join(needed)} weights: pip install "
            f"'im2im_zoo[{extra}]'; ONNX or TorchScript weights would need nothing"
        )
    return (
        f"{source}: its weights are of the format {', '.join(others)}; "
        f"this program runs {', '.join(WEIGHTS_FORMATS)}"
    )
