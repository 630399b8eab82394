"""What is predicted is a property of the image: not of the tiles, the axes' order, or how the image is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5 as spec
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from known_networks import Layer, Stack, stacks
from numpy.typing import NDArray
from operations_for_tests import NORMALISE_2D
from packages_for_tests import follows, output_axis, tensor_axis, tensor_in, tensor_out

from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import open_network, plan_prediction, predict_array
from im2im_zoo.runtime.layout.tiling import Grid
from im2im_zoo.runtime.plan.memory import Cost

COST = Cost(process=0, call=0, per_voxel=100.0)
ORDERS = (
    ("batch", "channel", "y", "x"),
    ("batch", "y", "x", "channel"),
    ("channel", "batch", "x", "y"),
    ("x", "channel", "y", "batch"),
)


class Reordered:
    """A network whose tensors have their axes in any order, as an engine."""

    weights_format, backend, precision, device = "onnx", "none", "float32", "cpu"

    def __init__(self, network: torch.nn.Module, before: Sequence[str], after: Sequence[str]) -> None:
        usual = ("batch", "channel", "y", "x")
        self.network = network
        self.before = [before.index(a) for a in usual]
        self.after = [usual.index(a) for a in after]

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        (array,) = inputs
        assert array is not None
        with torch.inference_mode():
            found = self.network(torch.from_numpy(array.transpose(self.before).copy()))
        return [np.ascontiguousarray(found.numpy().transpose(self.after))]


def described(stack: Stack, before: Sequence[str], after: Sequence[str]) -> Package:
    """A package of a stack of layers, with statistics of the whole image before it."""
    axis = stack.axis("y", 2)
    (port,) = axis.outputs
    assert port is not None
    root = Path(__file__).parent
    with ValidationContext(root=root, perform_io_checks=False, log_warnings=False):
        inputs = [
            tensor_axis(a, ["c"] if a == "channel" else (axis.minimum, axis.step) if a != "batch" else None)
            for a in before
        ]
        outputs = [
            output_axis(a, ["c"])
            if a == "channel"
            else output_axis(a)
            if a == "batch"
            else output_axis(a, follows("raw", a, port.offset), scale=float(1 / port.scale))
            for a in after
        ]
        description = spec.ModelDescr(
            name="A stack of layers",
            description="",
            authors=[spec.Author(name="Nobody")],
            cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
            license=spec.LicenseId("MIT"),
            inputs=[tensor_in("raw", inputs, preprocessing=[NORMALISE_2D])],
            outputs=[tensor_out("out", outputs)],
            weights={"onnx": {"source": Path(__file__).name, "opset_version": 17}},
        )
    return Package("a stack", root, description, {})


def compare_tiled_with_whole(
    stack: Stack, before: Sequence[str], after: Sequence[str], sizes: dict[str, int], steps: int, turned: bool
) -> None:
    """That tiles of some steps of the network's grid give what the whole image does."""
    package = described(stack, before, after)
    axis = stack.axis("y", 2)
    reach, grid = stack.reach(axis), Grid(axis.minimum, axis.step)
    tile = {a: grid.at_least(2 * reach + steps * 2 * axis.step + 8) for a in "yx"}
    values = np.random.default_rng(0).integers(0, 900, (sizes["y"], sizes["x"])).astype(np.uint16)
    image = xr.DataArray(values, dims=("y", "x"))
    engine = Reordered(stack.network(), before, after)
    options: dict[str, Any] = {"engine": engine, "cost": COST}
    image = image.transpose("x", "y") if turned else image
    whole = predict_array(package, image, whole=True, **options)
    tiled = predict_array(package, image, tile=tile, halo=reach, **options)
    assert tiled.shape == whole.shape == tuple(int(sizes[a] * stack.scale) for a in "yx")
    largest = float(np.abs(whole).max()) or 1.0
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * largest)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stacks,
    st.sampled_from(ORDERS),
    st.sampled_from(ORDERS),
    st.fixed_dictionaries({a: st.integers(3, 130) for a in "yx"}),
    st.integers(1, 6),
    st.booleans(),
)
# Its network takes 10 + n * 4, none of which is divided by its stride.
@example(Stack((Layer(3), *(Layer(2, 2, pool=True),) * 2)), ORDERS[0], ORDERS[0], {"y": 87, "x": 4}, 1, False)
def test_tiles_equal_the_whole_for_random_networks_strides_sizes_and_orders(
    stack, before, after, sizes, steps, turned
):
    assume(all(n * stack.scale >= 1 for n in sizes.values()))
    compare_tiled_with_whole(stack, before, after, sizes, steps, turned)


def stored(image: xr.DataArray, path: Path, chunks: Sequence[int]) -> Path:
    """The image as OME-Zarr, its first level in chunks of another size."""
    write_image(image, path)
    group = zarr.open_group(path, mode="r+")
    name = group.attrs.asdict()["ome"]["multiscales"][0]["datasets"][0]["path"]
    old = group[name]
    assert isinstance(old, zarr.Array)
    names = old.metadata.dimension_names  # type: ignore[union-attr]
    voxels = np.asarray(old[:])
    made = group.create_array(
        name,
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=(*(1,) * (voxels.ndim - 2), *chunks),
        dimension_names=names,
        overwrite=True,
    )
    made[:] = voxels
    return path


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_result_does_not_depend_on_how_the_image_is_stored(unet_2d, tmp_path, dtype):
    """Bit for bit: the same tiles of the same numbers, and statistics that no block size changes."""
    random = np.random.default_rng(3)
    values = (random.gamma(2.0, 300.0, (211, 173))).astype(dtype)
    image = xr.DataArray(values, dims=("y", "x"))
    np.save(tmp_path / "image.npy", values)
    write_image(image, tmp_path / "image.ome.tif")
    files = [
        *(stored(image, tmp_path / f"{y}_{x}.ome.zarr", (y, x)) for y, x in [(7, 173), (64, 64), (211, 5)]),
        tmp_path / "image.ome.tif",
    ]
    opened = [open_image(tmp_path / "image.npy", axes="yx"), *map(open_image, files), image]
    engine = open_network(unet_2d, threads=1, measure=False).engine
    options: dict[str, Any] = {"tile": {"y": 80, "x": 72}, "engine": engine, "halo": "declared", "cost": COST}
    first, *others = (predict_array(unet_2d, i, **options).to_numpy() for i in opened)
    assert len(plan_prediction(unet_2d, image, tile={"y": 80, "x": 72}, cost=COST)) > 4
    for other in others:
        np.testing.assert_array_equal(other, first)
