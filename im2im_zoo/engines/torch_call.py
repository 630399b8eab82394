"""Calling a torch module with numpy arrays: what the engines that use torch share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.engines.base import call_error
from im2im_zoo.errors import PackageError

if TYPE_CHECKING:
    import torch


def torch_device(weights: Path, weights_format: str, device: str) -> "torch.device":
    """The torch device of a name.

    Raises:
        PackageError: it is not there.
    """
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise PackageError(
            f"{weights} ({weights_format}): device {device!r} is not available to torch: "
            f"{str(error).splitlines()[0]}; use device cpu"
        ) from error
    return found


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Sets torch's threads for one call; they are the process's, so they are put back after it."""
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


def call_module(
    module: Any,
    inputs: Sequence[NDArray[Any] | None],
    device: "torch.device",
    weights: Path,
    weights_format: str,
    threads: int | None = None,
    precision: str = "float32",
) -> list[NDArray[Any]]:
    """Run a module once without gradients.

    Raises:
        PackageError: it refuses the arrays or returns something else than tensors.
    """
    import torch

    try:
        with limited_threads(threads), torch.inference_mode(), _numbers(device, precision):
            tensors = [None if a is None else torch.from_numpy(_writable(a)).to(device) for a in inputs]
            result = module(*_without_last_none(tensors))
    except (RuntimeError, TypeError, ValueError, IndexError, MemoryError) as error:
        raise call_error(weights, weights_format, inputs, error) from error
    outputs = [result] if isinstance(result, torch.Tensor) else result
    if not isinstance(outputs, list | tuple) or not all(isinstance(o, torch.Tensor) for o in outputs):
        raise PackageError(
            f"{weights} ({weights_format}): the network returns {type(result).__name__}; "
            "a package's network returns a tensor, or a list or tuple of tensors"
        )
    return [_array(o) for o in outputs]


def _array(tensor: "torch.Tensor") -> NDArray[Any]:
    import torch

    # numpy has no bfloat16, and half precision is a matter of the network's inside.
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return np.ascontiguousarray(wide.cpu().numpy()).reshape(tuple(tensor.shape))


def _without_last_none(tensors: list[Any]) -> list[Any]:
    """Optional inputs at the end that are not given are left to the network's own defaults."""
    while tensors and tensors[-1] is None:
        tensors = tensors[:-1]
    return tensors


def _numbers(device: "torch.device", precision: str) -> Any:
    import torch

    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # torch warns about arrays that it must not write to, even if it does not.
    contiguous = np.ascontiguousarray(array)
    return contiguous if contiguous.flags.writeable else contiguous.copy()
