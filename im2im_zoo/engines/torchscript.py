"""Run TorchScript weights with torch. Runs no Python of the package."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.torch_call import TorchCaller, channels_last, torch_device


class TorchScriptEngine:
    """A loaded TorchScript module in evaluation mode."""

    weights_format = "torchscript"
    backend = "torch"

    def __init__(
        self, weights: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "float32"
    ) -> None:
        self.device, self.precision = device, precision
        self._weights = weights
        place = torch_device(weights, self.weights_format, device)
        self._caller = TorchCaller(
            lambda last: self._loaded(place, last), weights, self.weights_format, place, threads, precision
        )

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`."""
        return self._caller(inputs)

    def _loaded(self, device: Any, last: bool) -> Any:
        import torch

        try:
            module = torch.jit.load(str(self._weights), map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError, EOFError) as error:
            raise PackageError(
                f"{self._weights}: the torchscript weights cannot be loaded by torch {torch.__version__}: "
                f"{' '.join(str(error).split())[:600]}; the file may be damaged or no TorchScript"
            ) from error
        return folded(channels_last(module.eval()) if last else module.eval())


def folded(module: Any) -> Any:
    """The module with its weights as constants and batch norms folded into the convolutions before them, if it can be."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.freeze(module)
        except RuntimeError:  # it changes its own attributes, as some traced modules do
            return module
