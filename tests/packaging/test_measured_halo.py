"""The halo that an export declares is enough for the test tensors that others judge it by."""

from pathlib import Path

import numpy as np
import xarray as xr
from packaging_samples import Pair, network_of, tiny_recipe
from torch import nn

from im2im_zoo.packaging import export_package, validate_package


def test_the_halo_is_what_the_test_tensors_need_where_the_middle_of_the_image_shows_nothing(
    nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    kwargs = {"in_channels": 1, "out_channels": 1, "kernel_size": 13, "padding": 6, "bias": False}
    recipe = tiny_recipe(2, "regression")
    box = recipe.network.model_copy(update={"callable": "torch.nn.Conv2d", "kwargs": kwargs})
    recipe = recipe.model_copy(update={"network": box})
    network = network_of(recipe)
    assert isinstance(network, nn.Conv2d)
    nn.init.constant_(network.weight, 1 / 169)
    image = np.zeros((1, 1100, 1100), np.uint16)
    image[0, :200, :200] = nuclei_2d[0][:200, :200]
    pair = Pair("corner", *(xr.DataArray(image, dims=("channel", "y", "x")),) * 2)
    made = export_package(network, recipe, [pair], tmp_path / "box", figures={}, weights=("onnx",))
    report = validate_package(made.folder)
    assert report.measured["halo"]["y"] == {"declared": 6, "needed": 6, "reach": 6}
    assert "halo" not in {f.code for f in report.findings}
