"""A state dict's network is of a library, or one file that needs neither im2im_zoo nor the recipe."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from packaging_samples import Pair, network_of, tiny_recipe, whole_output

from im2im_zoo.core.errors import PackageError
from im2im_zoo.package import open_package
from im2im_zoo.packaging import export_package, validate_package
from im2im_zoo.packaging.consumers.torchscript_ops import needed_torch
from im2im_zoo.packaging.export.architecture import FILE, libraries, write_architecture
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component, build_component
from im2im_zoo.recipe.load import make_recipe

OWN = {
    "im2im_zoo.networks.fnet.FNet": {"spatial_dims": 2, "depth": 1, "features": 4},
    "im2im_zoo.networks.anisotropic_unet.AnisotropicUNet": {"features": [4, 6]},
    "im2im_zoo.networks.blur_pool_unet.BlurPoolUNet": {"spatial_dims": 2},
    "im2im_zoo.networks.erfnet.ERFNet": {"spatial_dims": 2},
    "im2im_zoo.networks.probabilistic_unet.ProbabilisticUNet": {"spatial_dims": 2},
    "im2im_zoo.networks.resnet_generator.ResnetGenerator": {},
    "im2im_zoo.networks.self2self_unet.Self2SelfUNet": {"spatial_dims": 2},
}
FNET = {"callable": "im2im_zoo.networks.fnet.FNet", "kwargs": {"spatial_dims": 2, "depth": 1, "features": 4}}
NESTED = Component(
    callable="im2im_zoo.networks.embedding_maps.EmbeddingMaps",
    kwargs={"network": FNET, "voxel_size": [1, 1], "grid": 8, "sigma": 2},
)


def built_elsewhere(folder: Path, described: dict) -> dict[str, list[int]]:
    """The sizes of the weights of a network that is built from its file where there is no im2im_zoo."""
    script = (
        "import sys; sys.modules['im2im_zoo'] = None\n"  # an import of it fails
        "import json, runpy\n"
        f"made = runpy.run_path({FILE!r})[{described['callable']!r}](**{described.get('kwargs', {})!r})\n"
        "print(json.dumps({k: list(v.shape) for k, v in made.state_dict().items()}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", OWN)
def test_each_network_of_ours_is_one_file_of_torch_alone(path: str, tmp_path: Path) -> None:
    component = Component(callable=path, kwargs=OWN[path])
    described = write_architecture(component, tmp_path)
    assert libraries(described, tmp_path) == ["torch"]
    scope: dict = {}
    exec(compile((tmp_path / FILE).read_text(encoding="utf-8"), FILE, "exec"), scope)
    made = scope[described["callable"]](**described["kwargs"])
    expected = build_component(component, "network").state_dict()
    assert {k: v.shape for k, v in made.state_dict().items()} == {k: v.shape for k, v in expected.items()}


def test_components_within_are_written_out_and_run_without_im2im_zoo(tmp_path: Path) -> None:
    described = write_architecture(NESTED, tmp_path)
    expected = {k: list(v.shape) for k, v in build_component(NESTED, "network").state_dict().items()}
    assert built_elsewhere(tmp_path, described) == expected


def test_a_class_of_a_library_needs_no_file(tmp_path: Path) -> None:
    described = write_architecture(Component(callable="torch.nn.Conv2d", kwargs={"in_channels": 1}), tmp_path)
    assert described["import_from"] == "torch.nn"
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_is_not_called_cannot_be_said(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="not called"):
        write_architecture(Component(callable="torch.nn.ReLU", call=False), tmp_path)


def with_softmax(classes: int) -> Recipe:
    recipe = tiny_recipe(2, "semantic")
    content = recipe.model_dump(mode="json", exclude_none=True)
    content["network"]["kwargs"]["out_channels"] = classes
    content["output"]["postprocessing"] = [{"id": "softmax", "kwargs": {"axis": "channel"}}]
    return make_recipe(content, "softmax")


def test_a_softmax_is_in_the_graph_of_every_format_and_not_in_the_rdf(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = with_softmax(3)
    network = network_of(recipe)
    exported = export_package(network, recipe, [pair_2d], tmp_path / "p", figures={})
    with open_package(exported.folder) as package:
        assert package.weights == ("onnx", "torchscript", "pytorch_state_dict")
        assert [o.id for o in package.outputs[0].postprocessing] == ["ensure_dtype"]
        made = torch.jit.load(str(package.path("weights_torchscript.pt")))
    assert validate_package(exported.folder, allow_code=True).sound
    image = torch.rand(2, 1, 16, 12)
    with torch.no_grad():
        torch.testing.assert_close(made(image), torch.softmax(network(image), 1))
    text = (exported.folder / FILE).read_text(encoding="utf-8")
    assert "WithProcessing(network=monai.networks.nets.UNet(" in text
    assert "monai==" in (exported.folder / "environment.yaml").read_text(encoding="utf-8")
    assert "softmax" in (exported.folder / "recipe.yaml").read_text(encoding="utf-8")
    assert float(whole_output(network, recipe, pair_2d).sum("channel").std()) < 1e-5


def test_a_network_that_interpolates_is_torchscript_of_old_operations(pair_2d: Pair, tmp_path: Path) -> None:
    content = tiny_recipe(2, "regression").model_dump(mode="json", exclude_none=True)
    content["network"] = {
        "callable": "im2im_zoo.networks.blur_pool_unet.BlurPoolUNet", "kwargs": {"spatial_dims": 2, "features": 4},
    }  # fmt: skip
    recipe = make_recipe(content, "interpolates")
    network = network_of(recipe)
    torch.jit.save(torch.jit.script(network), tmp_path / "scripted.pt")
    assert needed_torch(tmp_path / "scripted.pt") > (1, 13), "torch has stopped to write what old ones lack"
    exported = export_package(network, recipe, [pair_2d], tmp_path / "p", figures={}, weights=["torchscript"])
    assert needed_torch(exported.folder / "weights_torchscript.pt") == (1, 13)
    assert "Traced" in (exported.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_newest_onnx_is_written_on_request(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    for opset in (23, 20):
        exported = export_package(
            network_of(recipe),
            recipe,
            [pair_2d],
            tmp_path / str(opset),
            figures={},
            weights=["onnx"],
            opset=opset,
        )
        model = onnx.load(str(exported.folder / "weights.onnx"))
        assert [o.version for o in model.opset_import if not o.domain] == [opset]
        assert validate_package(exported.folder).sound
