"""Run Keras weights. Runs no Python of the package: layers that hold any are refused without consent."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from im2im_zoo.engines.base import SafetyCheck, Weights
from im2im_zoo.engines.core_adapter import CoreEngine, as_list
from im2im_zoo.engines.zip_file import consent_hint, open_zip, refusal, safety_check

# Modules of Keras, with or without `src`, whose classes compute. Others load files, download or change what is allowed.
_MODULES = frozenset(
    {
        "activations", "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics", "models", "ops", "optimizers",
        "quantizers", "random", "regularizers",
    }
)  # fmt: skip
# Layers that run Python, or read files that they name.
_LAYERS = (
    "Lambda", "__lambda__", "FlaxLayer", "IndexLookup", "IntegerLookup", "JaxLayer", "StringLookup", "TextVectorization", "TFSMLayer",
    "TorchModuleWrapper",
)  # fmt: skip
_MODULE_TEXT = re.compile(rb'"module"\s*:\s*"([^"]*)"')
_LAYER_TEXT = re.compile(rb"Lambda|__lambda__|" + b"|".join(b'"%s"' % n.encode() for n in _LAYERS))
# A letter that JSON writes as a number would hide a name from the patterns above.
_HIDDEN_TEXT = re.compile(rb"\\u00[0-7][0-9a-fA-F]")


@safety_check
def check_keras_v3(weights: Weights) -> None:
    """Refuse a Keras file that names code outside of Keras, or a part of Keras that runs Python or reads files."""
    if weights.allow_code:
        return
    with open_zip(weights.path) as archive:
        for name in _foreign_classes(json.loads(archive.read("config.json"))):
            raise refusal(weights, f"it runs Python code, {name}: {consent_hint()}")


@safety_check
def check_keras_hdf5(weights: Weights) -> None:
    """Refuse an HDF5 file as `check_keras_v3` does, by the text of its configuration."""
    if weights.allow_code:
        return
    content = weights.path.read_bytes()
    modules = {m.decode("utf-8", errors="replace") for m in _MODULE_TEXT.findall(content)}
    foreign = sorted(m for m in modules if not _is_safe_module(m))
    if _HIDDEN_TEXT.search(content):
        foreign.append("a name that is not written as text")
    if layer := _LAYER_TEXT.search(content):
        foreign.append(f"a layer {layer[0].decode()}")
    if foreign:
        raise refusal(weights, f"it may hold Python code ({', '.join(foreign)}): {consent_hint()}")


class KerasEngine(CoreEngine):
    """A Keras model, by way of bioimageio.core."""

    backend = "keras"
    formats: ClassVar[Mapping[str, SafetyCheck]] = {
        "keras_v3": check_keras_v3,
        "keras_hdf5": check_keras_hdf5,
    }
    rank = 40
    distributions = ("keras",)

    def run(self, arrays: list[NDArray[Any] | None]) -> Sequence[Any]:
        """Run the model once."""
        if len(arrays) > 1:
            # The adapter passes the second input on as the batch size.
            return as_list(self.model().predict(arrays, verbose=0))
        return super().run(arrays)


def _foreign_classes(config: Any) -> list[str]:
    """Return what a Keras configuration would import from outside of Keras, and its Lambdas."""
    found, todo = list[str](), [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            module, name = value.get("module"), value.get("class_name")
            if name in _LAYERS:
                found.append(f"a {name} layer")
            elif isinstance(module, str) and not _is_safe_module(module):
                found.append(f"{module}.{name}")
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found


def _is_safe_module(module: str) -> bool:
    parts = [part for part in module.split(".") if part != "src"]
    if parts[0] in ("keras", "tf_keras") and len(parts) > 1:
        return parts[1] in _MODULES
    return module in ("keras", "builtins")
