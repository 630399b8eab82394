"""ONNX weights of one size behind an RDF of many run at their own size."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import ruyaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from packages_for_tests import build_package, small_unet
from scipy import ndimage

from im2im_zoo.engines import backends
from im2im_zoo.images import open_image, write_image
from im2im_zoo.images.memory import memory_image
from im2im_zoo.package import open_package
from im2im_zoo.runtime.predictor import Model
from im2im_zoo.runtime.settings import Settings

SIDE = 64
KERNEL = np.random.default_rng(0).normal(size=(1, 1, 5, 5)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(90, 111)).astype(np.float32)


def write_onnx(path: Path, shape: list[int | str]) -> None:
    node = helper.make_node("Conv", ["image", "kernel"], ["out"], pads=[2, 2, 2, 2])
    graph = helper.make_graph(
        [node],
        "one convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(KERNEL, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose RDF states 36 + n * 4, and whose only weights take 64."""
    folder = build_package(tmp_path_factory.mktemp("fixed") / "package", small_unet(levels=1), halo=4)
    rdf = next(p for p in folder.iterdir() if p.suffix == ".yaml")
    content = ruyaml.YAML(typ="safe").load(rdf.read_text())
    write_onnx(folder / "w.onnx", [1, 1, SIDE, SIDE])
    content["weights"] = {"onnx": {"source": "w.onnx", "opset_version": 17}}
    tensor = np.random.default_rng(2).normal(size=(1, 1, SIDE, SIDE)).astype(np.float32)
    for kind, array in (("inputs", tensor), ("outputs", convolved(tensor[0, 0])[None, None])):
        np.save(folder / f"{kind}.npy", array)
        content[kind][0]["test_tensor"] = {"source": f"{kind}.npy"}
    ruyaml.YAML(typ="safe").dump(content, rdf)
    return folder


def convolved(image: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ndimage.correlate(image, KERNEL[0, 0], mode="constant")
    return result


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_tiles_have_the_size_of_the_weights(package: Path, backend: str, tmp_path: Path) -> None:
    if backend not in backends("onnx"):
        pytest.skip(f"{backend} is not installed")
    model = Model(open_package(package))
    settings = Settings(backend=backend)
    image = memory_image(IMAGE, axes="yx")
    plan = model.plan(image, settings=settings)
    assert [axis.tile for axis in plan.axes] == [SIDE, SIDE]
    assert "the weights take only 64" in str(plan)
    path = write_image(image, tmp_path / "image.ome.tif")
    done = model.predict(path, tmp_path / "out.ome.zarr", settings=settings)
    # At the border the package mirrors the image.
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(
        open_image(done.output).values.squeeze()[inner], convolved(IMAGE)[inner], atol=1e-4
    )
    assert model.predict(path, tmp_path / "out.ome.zarr", settings=settings).already_complete


def test_weights_of_any_size_keep_the_sizes_of_the_rdf(package: Path) -> None:
    from im2im_zoo.runtime.layout.fixed_sizes import restrict_to_shapes
    from im2im_zoo.runtime.layout.mapping import map_axes

    layout = map_axes(open_package(package), memory_image(IMAGE, axes="yx"))
    assert restrict_to_shapes(layout, None) is layout
    assert restrict_to_shapes(layout, [(None, None, None, None)]) is layout
    assert [
        m.grid.fixed for m in restrict_to_shapes(layout, [(1, 1, SIDE, None)]).network_axes if m.grid
    ] == [True, False]
