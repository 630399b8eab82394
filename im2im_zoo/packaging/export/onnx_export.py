"""Export of a network as ONNX in memory, by the exporter of torch that writes the requested opset."""

import io
import warnings
from typing import TYPE_CHECKING

from im2im_zoo.networks import Grid

if TYPE_CHECKING:
    import torch
    from torch import nn

# Newest opset of the older of torch's exporters. It writes IR 8, where the newer one writes IR 10, also at opset 17: the
# ONNX Runtime of deepImageJ does not read it.
_MAX_OLDER_OPSET = 20


def onnx_bytes(
    network: "nn.Module", grid: Grid, channels: int, tensors: tuple[str, str], opset: int
) -> bytes:
    """Return the ONNX file with its weights; batch axes, and space axes with a step, are dynamic.

    Args:
        network: on the CPU, in evaluation mode; the exporters may change it.
        grid: the sizes at which it runs.
        channels: number of input channels.
        tensors: names of the input and the output tensor.
        opset: opset of ONNX.
    Raises:
        Exception: of any kind, from torch's exporters.
    """
    dynamic = {0: "batch", **{2 + i: f"size_{i}" for i, step in enumerate(grid.step) if step}}
    if opset <= _MAX_OLDER_OPSET:
        return _export_torchscript_based(network, _example(grid, channels, 1), dynamic, tensors, opset)
    # The exporter would take a batch of one as fixed.
    return _export_dynamo(network, _example(grid, channels, 2), dynamic, tensors, opset)


def _example(grid: Grid, channels: int, batch: int) -> "torch.Tensor":
    import torch

    return torch.zeros(batch, channels, *(m + s for m, s in zip(grid.min, grid.step, strict=True)))


def _export_torchscript_based(
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


def _export_dynamo(
    network: "nn.Module",
    example: "torch.Tensor",
    dynamic: dict[int, str],
    tensors: tuple[str, str],
    opset: int,
) -> bytes:
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # warnings about torch itself
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
        raise RuntimeError("torch's exporter returned no program")
    content: bytes = program.model_proto.SerializeToString()
    return content
