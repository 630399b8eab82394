"""Run TorchScript weights with torch. Runs no Python of the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from im2im_zoo.engines.torch_call import call_module, torch_device
from im2im_zoo.errors import PackageError


class TorchScriptEngine:
    """A loaded TorchScript module in evaluation mode."""

    weights_format = "torchscript"

    def __init__(self, weights: Path, *, device: str = "cpu", threads: int | None = None) -> None:
        import torch

        self._weights = weights
        self._device = torch_device(weights, self.weights_format, device)
        self._threads = threads
        try:
            module = torch.jit.load(str(weights), map_location=self._device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError, EOFError) as error:
            raise PackageError(
                f"{weights}: the torchscript weights cannot be loaded by torch {torch.__version__}: "
                f"{' '.join(str(error).split())[:600]}; the file may be damaged or no TorchScript"
            ) from error
        self._module = module.eval()

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `Engine`."""
        return call_module(
            self._module, inputs, self._device, self._weights, self.weights_format, self._threads
        )
