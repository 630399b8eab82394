"""Run Keras and TensorFlow weights through bioimageio.core's adapters. Runs no Python of the package."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import call_error


class CoreEngine:
    """An adapter of bioimageio.core, which takes the whole description of the model."""

    precision = "float32"
    device = "cpu"

    def __init__(
        self,
        weights: Path,
        weights_format: str,
        *,
        description: Any,
        backend: str,
        precision: str = "float32",
    ) -> None:
        if precision != "float32":
            raise PackageError(
                f"{weights} ({weights_format}): {backend} runs in float32 here, not in {precision}"
            )
        if description is None:
            raise PackageError(
                f"{weights} ({weights_format}): is run by way of its whole description, which is not given"
            )
        self.weights_format, self.backend, self._weights = weights_format, backend, weights
        # Its adapter of TensorFlow unzips into the working folder, which is a person's.
        self._unzipped = TemporaryDirectory(prefix="im2im_zoo_")
        try:
            from bioimageio.core.backends import create_model_adapter

            wanted: Any = [weights_format]
            with chdir(self._unzipped.name):
                self._adapter: Any = create_model_adapter(description, weight_format_priority_order=wanted)
        except Exception as error:  # the libraries' loaders may raise anything
            raise PackageError(
                f"{weights}: the {weights_format} weights cannot be loaded: {' '.join(str(error).split())[:600]}; they may be of "
                "another version of the library"
            ) from error

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`."""
        try:
            found = self._run([None if a is None else np.ascontiguousarray(a) for a in inputs])
        except Exception as error:  # as above
            raise call_error(self._weights, self.weights_format, inputs, error) from error
        return [np.ascontiguousarray(np.asarray(o)) for o in found]

    def _run(self, arrays: list[NDArray[Any] | None]) -> Sequence[Any]:
        if self.backend == "keras" and len(arrays) > 1:
            # Its adapter hands the second input on as the batch size.
            return _listed(self._model().predict(arrays, verbose=0))
        if self.backend == "tensorflow":
            # Its adapter takes named outputs only, which Keras 3 does not write.
            return _listed(self._model()(*arrays))
        from bioimageio.core import Tensor

        members = zip(self._adapter._input_ids, self._adapter._input_axes, arrays, strict=True)
        tensors = {name: None if a is None else Tensor(a, dims=axes) for name, axes, a in members}
        results = self._adapter.forward(tensors)
        return [
            results[name].transpose(axes).to_numpy()
            for name, axes in zip(self._adapter._output_ids, self._adapter._output_axes, strict=True)
        ]

    def _model(self) -> Any:
        device, model = self._adapter._model_queue.get()
        self._adapter._model_queue.put((device, model))
        return model


def _listed(found: Any) -> list[Any]:
    """Outputs that a library gives by name, in a list, or alone."""
    if isinstance(found, dict):
        return list(found.values())
    return list(found) if isinstance(found, list | tuple) else [found]
