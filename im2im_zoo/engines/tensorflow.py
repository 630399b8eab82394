"""Run a SavedModel with TensorFlow. Graphs that use files or Python are refused without consent."""

import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from im2im_zoo.engines.base import SafetyCheck, Weights
from im2im_zoo.engines.core_adapter import CoreEngine, as_list
from im2im_zoo.engines.zip_file import consent_hint, open_zip, refusal, safety_check

# Operators that run Python, or read and write files when a network is called.
_OPERATORS = (b"PyFunc", b"EagerPyFunc", b"PyFuncStateless", b"WriteFile", b"ReadFile", b"PrintV2")


@safety_check
def check_saved_model(weights: Weights) -> None:
    """Refuse a SavedModel whose graph uses files or Python."""
    if weights.allow_code or not zipfile.is_zipfile(weights.path):
        return
    with open_zip(weights.path) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".pb"):
                continue
            graph = archive.read(entry)
            used = sorted(o.decode() for o in _OPERATORS if o in graph)
            if used:
                raise refusal(
                    weights, f"its graph uses files or Python ({', '.join(used)}): {consent_hint()}"
                )


class TensorFlowEngine(CoreEngine):
    """A SavedModel, by way of bioimageio.core."""

    backend = "tensorflow"
    formats: ClassVar[Mapping[str, SafetyCheck]] = {"tensorflow_saved_model_bundle": check_saved_model}
    rank = 50
    distributions = ("tensorflow",)

    def run(self, arrays: list[NDArray[Any] | None]) -> Sequence[Any]:
        """Run the model once."""
        # The adapter takes named outputs only, which Keras 3 does not write.
        return as_list(self.model()(*arrays))
