"""Run weights through bioimageio.core's adapters. Shared by the engines of Keras and TensorFlow; runs no Python of the package."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import chdir
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import BaseEngine, RunOptions, Weights, call_error, one_line


class CoreEngine(BaseEngine):
    """An adapter of bioimageio.core, which takes the whole description of the model."""

    # The libraries choose the device themselves.
    devices = ("cpu", "cuda", "mps", "xpu")
    extra = "tensorflow"

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        super().__init__(weights, options)
        self.device = "cpu"
        if weights.description is None:
            raise PackageError(
                f"{weights}: opening it takes the whole description of the model, which is not given"
            )
        # Its adapter of TensorFlow unzips into the working folder, which is the user's.
        self._unzipped = TemporaryDirectory(prefix="im2im_zoo_")
        try:
            from bioimageio.core.backends import create_model_adapter

            wanted: Any = [weights.format]
            with chdir(self._unzipped.name):
                self._adapter: Any = create_model_adapter(
                    weights.description, weight_format_priority_order=wanted
                )
        except Exception as error:  # the libraries' loaders may raise anything
            raise PackageError(
                f"{weights.path}: the {weights.format} weights cannot be loaded: {one_line(error)}; they may be of "
                "another version of the library"
            ) from error

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        try:
            outputs = self.run([None if a is None else np.ascontiguousarray(a) for a in inputs])
        except Exception as error:  # as above
            raise call_error(self.weights, inputs, error) from error
        return [np.ascontiguousarray(np.asarray(o)) for o in outputs]

    @abstractmethod
    def run(self, arrays: list[NDArray[Any] | None]) -> Sequence[Any]:
        """Run the adapter once."""
        from bioimageio.core import Tensor

        members = zip(self._adapter._input_ids, self._adapter._input_axes, arrays, strict=True)
        tensors = {name: None if a is None else Tensor(a, dims=axes) for name, axes, a in members}
        results = self._adapter.forward(tensors)
        return [
            results[name].transpose(axes).to_numpy()
            for name, axes in zip(self._adapter._output_ids, self._adapter._output_axes, strict=True)
        ]

    def model(self) -> Any:
        """Return the library's own model."""
        device, model = self._adapter._model_queue.get()
        self._adapter._model_queue.put((device, model))
        return model


def as_list(outputs: Any) -> list[Any]:
    """Return outputs that a library gives by name, in a list, or as a single array, as a list."""
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
