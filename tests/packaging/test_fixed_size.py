"""A network of one size: its package says so in all formats, and larger images go through it in tiles that are blended."""

from pathlib import Path

import numpy as np
import pytest
import torch
from packaging_samples import Pair, network_of, tiny_recipe
from torch import Tensor, nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks import Grid, step_grid
from im2im_zoo.package import open_package
from im2im_zoo.packaging import Exported, export_package, validate_package
from im2im_zoo.packaging.export.sample import Steps
from im2im_zoo.recipe import Network, Recipe
from im2im_zoo.recipe.components import Component
from im2im_zoo.runtime import predict_array
from im2im_zoo.runtime.predictor import Model
from im2im_zoo.runtime.settings import Settings

pytest.importorskip("einops", reason="MONAI's UNETR needs it")
SIZE = 32
FORMATS = {"onnx", "torchscript", "pytorch_state_dict"}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    tiny = tiny_recipe(2, "regression")
    unetr = {
        "in_channels": 1, "out_channels": 1, "img_size": SIZE, "spatial_dims": 2, "feature_size": 4, "hidden_size": 8,
        "mlp_dim": 8, "num_heads": 2,
    }  # fmt: skip
    network = Network(callable="monai.networks.nets.UNETR", kwargs=unetr)
    data = tiny.data.model_copy(update={"patch_size": (SIZE, SIZE)})
    return tiny.model_copy(update={"network": network, "data": data})


@pytest.fixture(scope="module")
def exported(recipe: Recipe, pair_2d: Pair, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("fixed") / "unetr"
    part = of_several_tiles(pair_2d)
    return export_package(network_of(recipe), recipe, [part], folder, figures={"pearson": 0.9})


def of_several_tiles(pair: Pair) -> Pair:
    return Pair("part", *(a.isel(y=slice(70), x=slice(60)) for a in (pair.input, pair.target)))


def test_the_package_has_axes_of_one_size_in_all_formats_and_is_sound(exported: Exported) -> None:
    with open_package(exported.folder) as package:
        assert {str(a.id): a.size for a in package.inputs[0].axes if a.type == "space"} == {
            "y": SIZE,
            "x": SIZE,
        }
        assert set(package.weights) == FORMATS
        assert package.raw["config"]["im2im_zoo"]["receptive_field"] == "global"
        assert max(a.get("halo", 0) for a in package.raw["outputs"][0]["axes"]) <= SIZE // 4
    assert validate_package(exported.folder, allow_code=True).findings == ()


def test_that_larger_images_are_blended_is_said_where_people_look(exported: Exported, pair_2d: Pair) -> None:
    assert any(f"accepts images of y {SIZE} x x {SIZE} only" in line for line in exported.warnings)
    readme = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert f"y {SIZE} and no other" in readme
    assert "tiles can never give exactly what the whole image gives" in readme
    with open_package(exported.folder) as package:
        settings = Settings(weights="onnx", backend="onnxruntime")
        plan = Model(package).plan(of_several_tiles(pair_2d).input, settings=settings)
    assert [axis.tile for axis in plan.axes] == [SIZE, SIZE]
    assert plan.blend


class Local(nn.Module):
    """A convolution that takes 16 x 16 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2:] != (16, 16):
            raise ValueError("16 x 16 alone")
        result: Tensor = self.convolution(image)
        return result


def test_a_network_of_one_size_is_measured_at_the_patch_of_its_training() -> None:
    grid = step_grid(Local().eval(), 1, 2, patch=(16, 16))
    assert grid == Grid((16, 16), (0, 0))
    assert grid.ceil((40, 3)) == grid.floor((40, 3)) == (16, 16)
    with pytest.raises(PackageError, match="no regular sizes"):
        step_grid(Local().eval(), 1, 2, patch=(32, 32))


def test_a_network_of_one_local_size_is_packaged_with_the_halo_that_it_needs(
    pair_2d: Pair, tmp_path: Path
) -> None:
    tiny, network, part = tiny_recipe(2, "regression"), Local().eval(), of_several_tiles(pair_2d)
    exported = export_package(
        network, tiny, [part], tmp_path / "local", figures={},
        weights=("torchscript",), architecture=Component(callable="torch.nn.Identity"),
    )  # fmt: skip
    with open_package(exported.folder) as package:
        ours = package.raw["config"]["im2im_zoo"]
        assert ours["receptive_field"] == {"y": 1, "x": 1}
        assert ours["halo"] == {"y": 1, "x": 1}
        tiled = predict_array(package, part.input, halo="declared", blend=False, backend="torch")
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(Steps.of(tiny).prepare(part.input).to_numpy()), *network.parameters(), padding=1
    )
    # Beyond the border of the image tiles see its mirror image, the convolution zeros.
    np.testing.assert_allclose(tiled[:, 1:-1, 1:-1], expected[0, :, 1:-1, 1:-1].detach(), atol=1e-5)
