"""Run Keras weights. Runs no Python of the package: layers that hold any are refused without consent."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from im2im_zoo.engines.base import SafetyCheck, Weights
from im2im_zoo.engines.core_adapter import CoreEngine, as_list
from im2im_zoo.engines.zip_file import consent_hint, open_zip, refusal, safety_check


@safety_check
def check_keras_v3(weights: Weights) -> None:
    """Refuse a Keras file that imports anything from outside of Keras, or holds a Lambda layer."""
    if weights.allow_code:
        return
    with open_zip(weights.path) as archive:
        for name in _foreign_classes(json.loads(archive.read("config.json"))):
            raise refusal(weights, f"it runs Python code, {name}: {consent_hint()}")


@safety_check
def check_keras_hdf5(weights: Weights) -> None:
    """Refuse an HDF5 file with a Lambda layer."""
    if weights.allow_code:
        return
    content = weights.path.read_bytes()
    if b"Lambda" in content or b"__lambda__" in content:
        raise refusal(weights, f"it holds Python code (a Lambda layer): {consent_hint()}")


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
            if name in ("Lambda", "__lambda__"):
                found.append("a Lambda layer")
            elif isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins"):
                found.append(f"{module}.{name}")
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found
