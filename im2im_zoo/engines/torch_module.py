"""Call a torch module with numpy arrays. Shared by the engines that use torch."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import PRECISIONS, BaseEngine, RunOptions, Weights, call_error

if TYPE_CHECKING:
    import torch


TORCH_DEVICES = ("cpu", "cuda", "mps", "xpu")


def torch_device(weights: Weights, device: str) -> "torch.device":
    """Return the torch device of a name.

    Raises:
        PackageError: the device is not available.
    """
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise PackageError(
            f"{weights}: device {device!r} is not available to torch: "
            f"{str(error).splitlines()[0]}; use device cpu"
        ) from error
    return found


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Set torch's threads for one call; they are the process's, so they are put back after it."""
    import torch

    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchModule:
    """A torch module on a device, called with numpy arrays.

    Convolutions run with the channels last, which is up to twice as fast on CPUs, and the layout that tensor cores read. A
    network that relies on channels first (by `view`) fails in its first call, and is loaded again as it was.

    Args:
        load: returns the module on the device, in evaluation mode; its argument is whether to lay out the weights of
            convolutions for channels that come last.
        weights: of the package, for messages.
        device: of torch.
        options: threads and precision.
    """

    def __init__(
        self, load: Callable[[bool], Any], weights: Weights, device: "torch.device", options: RunOptions
    ) -> None:
        self._load, self._weights, self._device, self._options = load, weights, device, options
        self._last = device.type in ("cpu", "cuda")
        self._module = load(self._last)

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """Run the module once without gradients.

        Raises:
            PackageError: the module refuses the arrays or returns anything but tensors.
        """
        try:
            return self._call(inputs)
        except PackageError as error:
            if not (self._last and "view" in str(error.__cause__)):
                raise
        self._last = False
        self._module = self._load(False)
        return self._call(inputs)

    def _call(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        import torch

        try:
            with (
                limited_threads(self._options.threads),
                torch.inference_mode(),
                _precision(self._device, self._options.precision),
            ):
                tensors = [
                    None if a is None else self._placed(torch.from_numpy(_writable(a))) for a in inputs
                ]
                result = self._module(*_without_last_none(tensors))
        except (RuntimeError, TypeError, ValueError, IndexError, MemoryError) as error:
            raise call_error(self._weights, inputs, error) from error
        outputs = [result] if isinstance(result, torch.Tensor) else result
        if not isinstance(outputs, list | tuple) or not all(isinstance(o, torch.Tensor) for o in outputs):
            raise PackageError(
                f"{self._weights}: the network returns {type(result).__name__}; "
                "a package's network returns a tensor, or a list or tuple of tensors"
            )
        return [_array(o) for o in outputs]

    def _placed(self, tensor: "torch.Tensor") -> "torch.Tensor":
        placed = tensor.to(self._device)
        layout = _layouts().get(tensor.ndim)
        return placed if layout is None or not self._last else placed.contiguous(memory_format=layout)


class TorchEngine(BaseEngine):
    """Base of the engines that run a torch module."""

    backend = "torch"
    devices = TORCH_DEVICES
    precisions = PRECISIONS
    distributions = ("torch",)
    extra = "torch"

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        super().__init__(weights, options)
        place = torch_device(weights, options.device)
        self._module = TorchModule(lambda last: self.load(place, last), weights, place, options)

    @abstractmethod
    def load(self, device: "torch.device", last: bool) -> Any:
        """Return the module on a device, in evaluation mode; see `TorchModule`."""

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        return self._module(inputs)


def channels_last(module: Any) -> Any:
    """Lay out the weights of a module's convolutions for channels that come last, in place, and return it."""
    layouts = _layouts()
    for weight in module.parameters():
        if weight.ndim in layouts:
            weight.data = weight.data.contiguous(memory_format=layouts[weight.ndim])
    return module


def _layouts() -> "dict[int, torch.memory_format]":
    """Return the layouts of images without and with depth, by the number of axes of a tensor."""
    import torch

    return {4: torch.channels_last, 5: torch.channels_last_3d}


def _array(tensor: "torch.Tensor") -> NDArray[Any]:
    import torch

    # numpy has no bfloat16, and half precision is internal to the network.
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return np.ascontiguousarray(wide.cpu().numpy()).reshape(tuple(tensor.shape))


def _without_last_none(tensors: list[Any]) -> list[Any]:
    """Leave optional inputs at the end that are not given to the network's own defaults."""
    while tensors and tensors[-1] is None:
        tensors = tensors[:-1]
    return tensors


@contextmanager
def _precision(device: "torch.device", precision: str) -> Iterator[None]:
    """Set the numbers within the network. On CUDA: float32 is no TF32, and the same call gives the same bits."""
    import torch

    lower = precision != "float32"
    cudnn: Any = nullcontext()
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=lower
        )
    with cudnn, torch.autocast(device.type, dtype=getattr(torch, precision)) if lower else nullcontext():
        yield


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # torch warns about arrays that it must not write to, even if it does not.
    contiguous = np.ascontiguousarray(array)
    return contiguous if contiguous.flags.writeable else contiguous.copy()
