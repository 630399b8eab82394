"""What is predicted in a benchmark: networks, packages of them and images, all made on the spot from seeds.

The networks are MONAI's BasicUNet with batch norm, whose statistics are set by one pass over noise: weights are random, but
activations are scaled as those of a trained network, so that tiling errors are of the size that they have in practice.
"""

import hashlib
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

# How far an input voxel reaches through four levels of BasicUNet (102), rounded up to the 16 voxels that it pools to one.
# At blocks and halos of such multiples, bioimageio.core's blocks pool as the whole image does.
HALO = 112
STEP = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One network on one image.

    Attributes:
        name: for the table.
        features: of BasicUNet, six of them.
        shape: of the image in voxels, y, x or z, y, x; z is never cut.
        block: of bioimageio.core along y and x, as a package's author would leave it; `tuned_block` is the one within the
            memory budget that computes the least: (side / n) + 2 halos for the smallest n.
        window: of MONAI along y and x, its usual one; `tuned_windows` are larger.
        covers: sides of the tiles of which the fastest makes the ideal cover.
        region: side, in y and x from the image's corner, of the part that is compared with the exact result.
        memory: bytes that im2im_zoo may take.
    """

    name: str
    features: tuple[int, ...]
    shape: tuple[int, ...]
    block: int
    tuned_block: int
    window: int
    tuned_windows: tuple[int, ...]
    covers: tuple[int, ...]
    region: int
    memory: int = 8 * 1024**3

    @property
    def axes(self) -> tuple[str, ...]:
        """The image's axes."""
        return ("z", "y", "x")[-len(self.shape) :]

    @property
    def voxels(self) -> int:
        """Of the image."""
        return math.prod(self.shape)

    def tile(self, side: int) -> tuple[int, ...]:
        """A tile of one side along y and x, and all of z."""
        return (*self.shape[:-2], side, side)


_WIDE, _NARROW = (32, 32, 64, 128, 256, 32), (8, 8, 16, 32, 64, 8)

CASES = {
    "2d": Case("2d", _WIDE, (4096, 4096), 512, 2272, 256, (512, 1024), (256, 512, 1024, 2048), 1280),
    "3d": Case("3d", _NARROW, (64, 1024, 1024), 512, 736, 256, (512, 1024), (128, 256, 512), 640),
}
QUICK = {
    "2d": Case("2d quick", _NARROW, (768, 768), 512, 608, 256, (512,), (256, 384, 768), 640, 2 * 1024**3),
    "3d": Case("3d quick", (4, 4, 8, 16, 32, 4), (16, 384, 384), 384, 608, 128, (256,), (128, 192, 384), 320, 2 * 1024**3),
}  # fmt: skip


def write_case(case: Case, folder: Path) -> None:
    """Write into a folder: the package, the network's weights, and the image as OME-Zarr and as TIFF."""
    import tifffile
    import torch
    import xarray as xr

    from im2im_zoo.images import write_image

    folder.mkdir(parents=True)
    voxels = _image(case.shape)
    write_image(xr.DataArray(voxels, dims=case.axes), folder / "image.ome.zarr")
    tifffile.imwrite(folder / "image.tif", voxels)
    network = _seeded(case)
    torch.save(network.state_dict(), folder / "weights.pth")
    _write_package(case, network, folder / "package")


def network_of(case: Case, weights: Path) -> "nn.Module":
    """The network as a user of torch has it, ready to run."""
    import torch

    network = _network(case)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def normalised(voxels: NDArray[Any]) -> NDArray[np.float32]:
    """The package's preprocessing, of the whole image in memory."""
    values = voxels.astype(np.float32)
    return (values - values.mean(dtype=np.float64).astype(np.float32)) / np.float32(
        values.std(dtype=np.float64) + 1e-6
    )


def _image(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Noise at scales from a voxel to a cell."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(1)
    total = random.standard_normal(shape, dtype=np.float32)
    for sigma in (3.0, 12.0):
        smooth = gaussian_filter(random.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
        total += 2 * smooth / smooth.std()
    return np.clip(1000 + 200 * total, 0, 65535).astype(np.uint16)


def _network(case: Case) -> "nn.Module":
    from monai.networks.nets import BasicUNet

    return BasicUNet(len(case.shape), in_channels=1, out_channels=1, features=case.features, norm="batch")


def _seeded(case: Case) -> "nn.Module":
    import torch

    torch.manual_seed(0)
    network = _network(case)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(1, 1, *([32] if len(case.shape) == 3 else []), 128, 128))
    return network.eval()


def _write_package(case: Case, network: "nn.Module", folder: Path) -> None:
    """A package as an author would make it: TorchScript and ONNX, test tensors, and the halo that exactness takes."""
    import torch
    from bioimageio.spec import ValidationContext
    from bioimageio.spec.utils import write_yaml

    folder.mkdir()
    example = _image(case.tile(16 * math.ceil((2 * HALO + 1) / 16)))
    with torch.inference_mode():
        output = network(torch.from_numpy(normalised(example))[None, None])
    np.save(folder / "test_input.npy", example[None, None])
    np.save(folder / "test_output.npy", output.numpy())
    weights = _write_weights(network, case.axes, folder)
    with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
        write_yaml(_description(case, weights), folder / "rdf.yaml")


def _write_weights(network: "nn.Module", axes: tuple[str, ...], folder: Path) -> dict[str, Any]:
    import torch

    names = ("batch", "channel", *axes)
    example = torch.zeros(1, 1, *[32] * len(axes))
    dynamic = {axis: name for axis, name in enumerate(names) if name != "channel"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(folder / "weights.pt"))
        torch.onnx.export(
            network, (example,), str(folder / "weights.onnx"), dynamo=False, opset_version=17,
            input_names=["raw"], output_names=["out"], dynamic_axes={"raw": dynamic, "out": dynamic},
        )  # fmt: skip
    return {
        "onnx": {**_file(folder / "weights.onnx"), "opset_version": 17},
        "torchscript": {**_file(folder / "weights.pt"), "pytorch_version": "2.6", "parent": "onnx"},
    }


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _description(case: Case, weights: dict[str, Any]) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    axes = [spec.AxisId(a) for a in case.axes]
    least = STEP * math.ceil((2 * HALO + 1) / STEP)
    size = {a: case.shape[0] if a == "z" else spec.ParameterizedSize(min=least, step=STEP) for a in case.axes}
    channel = [spec.Identifier("signal")]
    steps = [
        spec.ZeroMeanUnitVarianceDescr(
            kwargs=spec.ZeroMeanUnitVarianceKwargs(axes=[spec.AxisId(a) for a in ("channel", *case.axes)])
        ),
        spec.EnsureDtypeDescr(kwargs=spec.EnsureDtypeKwargs(dtype="float32")),
    ]
    outputs = [
        spec.SpaceOutputAxisWithHalo(
            id=a, halo=HALO, size=spec.SizeReference(tensor_id=spec.TensorId("raw"), axis_id=a)
        )
        if a != "z"
        else spec.SpaceOutputAxis(id=a, size=case.shape[0])
        for a in axes
    ]
    return spec.ModelDescr(
        name="Benchmark model",
        description="BasicUNet with random weights.",
        authors=[spec.Author(name="im2im_zoo")],
        cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
        license=spec.LicenseId("MIT"),
        inputs=[
            spec.InputTensorDescr(
                id=spec.TensorId("raw"),
                axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=channel), *(spec.SpaceInputAxis(id=a, size=size[str(a)]) for a in axes)],
                preprocessing=steps,
                data=spec.IntervalOrRatioDataDescr(type="uint16"),
                test_tensor={"source": "test_input.npy"},
            )
        ],
        outputs=[
            spec.OutputTensorDescr(
                id=spec.TensorId("out"),
                axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=channel), *outputs],
                test_tensor={"source": "test_output.npy"},
            )
        ],
        weights=weights,
    )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
