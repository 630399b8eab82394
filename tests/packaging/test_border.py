"""A package states how much its output changes at the border of an image in programs that mirror it there."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from packaging_samples import Pair, network_of, tiny_recipe
from torch import nn

from im2im_zoo.package import open_package
from im2im_zoo.packaging import export_package
from im2im_zoo.packaging.export.border import (
    MIRRORED_TEST_OUTPUT,
    Border,
    compare_at_border,
    mirrored_output,
)


def box(padding_mode: str) -> nn.Conv2d:
    """The mean of 5 x 5 voxels; beyond the image are zeros, or the image mirrored."""
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False, padding_mode=padding_mode)
    nn.init.constant_(conv.weight, 1 / 25)
    return conv


def call(network: nn.Module):
    def run(array: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(array)).numpy()

    return run


def test_zeros_beyond_the_border_are_felt_as_far_as_the_network_reaches() -> None:
    image = np.ones((1, 1, 20, 24), np.float32)
    image[..., 10, 12] = 2.0  # for a range of values
    network = call(box("zeros"))
    output, mirrored = network(image), mirrored_output(network, image, (4, 4))
    assert mirrored.shape == output.shape
    np.testing.assert_allclose(mirrored[0, 0, 0, 0], 1.0, rtol=1e-6)
    found = compare_at_border(mirrored, output)
    # In a corner 9 of 25 voxels are of the image; the range is from there to the mean around the brighter voxel.
    assert found.largest == pytest.approx((1 - 9 / 25) / (26 / 25 - 9 / 25), rel=1e-5)
    assert found.width == 2


def test_a_network_without_a_border_shows_none_and_one_of_the_whole_image_has_it_everywhere() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 1, 16, 16), dtype=np.float32)
    pointwise = call(nn.Conv2d(1, 1, 1))
    assert compare_at_border(mirrored_output(pointwise, image, (2, 2)), pointwise(image)) == Border(
        0.0, 0.0, 0
    )
    image[..., :2, :] += 5.0  # mirrored, it has more of the bright rows
    centred = call(nn.InstanceNorm2d(1))
    assert compare_at_border(mirrored_output(centred, image, (4, 4)), centred(image)).width is None


def test_the_package_states_its_border_and_holds_the_mirrored_output_on_request(
    pair_2d: Pair, tmp_path: Path
) -> None:
    recipe = tiny_recipe(2, "semantic")
    made = export_package(
        network_of(recipe),
        recipe,
        [pair_2d],
        tmp_path / "p",
        figures={},
        weights=["torchscript"],
        mirrored_test_output=True,
    )
    rdf = yaml.safe_load((made.folder / "rdf.yaml").read_text(encoding="utf-8"))
    border = rdf["config"]["im2im_zoo"]["border"]
    mirrored, output = (np.load(made.folder / n) for n in (MIRRORED_TEST_OUTPUT, "test_output.npy"))
    found = compare_at_border(mirrored, output)
    assert border["width"] == found.width
    assert border["largest_difference"] == pytest.approx(found.largest, rel=1e-2)
    assert 0 < found.width < 16  # type: ignore[operator]
    with open_package(made.folder) as package:
        assert MIRRORED_TEST_OUTPUT in {str(a.source) for a in package.description.attachments}
    assert f"within {found.width} voxels of the border" in (made.folder / "README.md").read_text("utf-8")
