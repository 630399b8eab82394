"""Run a SavedModel with TensorFlow. Graphs that use files or Python are refused without consent."""

import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from im2im_zoo.engines.base import SafetyCheck, Weights
from im2im_zoo.engines.core_adapter import CoreEngine, as_list
from im2im_zoo.engines.zip_file import consent_hint, open_zip, refusal, safety_check

# Operators that run Python, use the network, or read and write files when a network is called. Those that every SavedModel has to
# restore its own variables (SaveV2, RestoreV2, MergeV2Checkpoints) cannot be told from others of the same name.
_OPERATORS = (
    b"PyFunc", b"EagerPyFunc", b"PyFuncStateless", b"WriteFile", b"ReadFile", b"PrintV2", b"CacheDataset", b"DataServiceDataset",
    b"DebugIdentity", b"DebugNanCount", b"DebugNumericSummary", b"FixedLengthRecordDataset", b"FixedLengthRecordReader",
    b"IdentityReader", b"ImmutableConst", b"LMDBReader", b"LoadAndRemapMatrix", b"LoadDataset", b"MatchingFiles",
    b"RemoteCall", b"RpcCall", b"SaveDataset", b"SnapshotDataset", b"SummaryFileWriter", b"SummaryDbWriter", b"TextLineDataset",
    b"TextLineReader", b"TFRecordDataset", b"TFRecordReader", b"WholeFileReader",
)  # fmt: skip
# Other forms of a graph, which TensorFlow reads as well and which have other bytes.
_OTHER_FORMS = (".pbtxt", ".cpb")


@safety_check
def check_saved_model(weights: Weights) -> None:
    """Refuse a SavedModel whose graph uses files or Python."""
    if weights.allow_code or not zipfile.is_zipfile(weights.path):
        return
    with open_zip(weights.path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(_OTHER_FORMS):
                raise refusal(
                    weights, f"it has a graph of another form, {entry.filename}: save it as saved_model.pb"
                )
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
