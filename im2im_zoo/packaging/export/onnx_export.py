"""A network as ONNX in memory, by the exporter of torch that writes the opset that is asked for. Checks nothing."""

import io
import warnings
from typing import TYPE_CHECKING

from im2im_zoo.networks import Grid

if TYPE_CHECKING:
    import torch
    from torch import nn

# The newest that the older of torch's exporters writes. It writes IR 8, where the newer one writes IR 10, also at opset 17: the
# ONNX Runtime of deepImageJ does not read it.
_OLDER = 20


def onnx_bytes(
    network: "nn.Module", grid: Grid, channels: int, tensors: tuple[str, str], opset: int
) -> bytes:
    """The file, weights within, whose batch and space axes are dynamic where the grid has a step.

    Args:
        network: on the CPU, in evaluation mode; the exporters may change it.
        grid: the sizes at which it runs.
        channels: of its input.
        tensors: names of the input and the output tensor.
        opset: of ONNX.
    Raises:
        Exception: of any kind, of torch's exporters.
    """
    dynamic = {0: "batch", **{2 + i: f"size_{i}" for i, step in enumerate(grid.step) if step}}
    if opset <= _OLDER:
        return _of_older_exporter(network, _example(grid, channels, 1), dynamic, tensors, opset)
    # A batch of one would be taken for always one.
    return _of_newer_exporter(network, _example(grid, channels, 2), dynamic, tensors, opset)


def _example(grid: Grid, channels: int, batch: int) -> "torch.Tensor":
    import torch

    return torch.zeros(batch, channels, *(m + s for m, s in zip(grid.min, grid.step, strict=True)))


def _of_older_exporter(
    network: "nn.Module",
    example: "torch.Tensor",
    dynamic: dict[int, str],
    tensors: tuple[str, str],
    opset: int,
) -> bytes:
    import torch

    content = io.BytesIO()
    with torch.inference_mode():
        torch.onnx.export(
            network,
            (example,),
            content,  # type: ignore[arg-type]  # this exporter takes a file object too
            dynamo=False,
            opset_version=opset,
            input_names=[tensors[0]],
            output_names=[tensors[1]],
            dynamic_axes=dict.fromkeys(tensors, dynamic),
            external_data=False,
        )
    return content.getvalue()


def _of_newer_exporter(
    network: "nn.Module",
    example: "torch.Tensor",
    dynamic: dict[int, str],
    tensors: tuple[str, str],
    opset: int,
) -> bytes:
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of its own parts
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[tensors[0]],
            output_names=[tensors[1]],
            dynamic_shapes=(dict.fromkeys(dynamic, torch.export.Dim.AUTO),),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("it gave nothing")
    content: bytes = program.model_proto.SerializeToString()
    return content
