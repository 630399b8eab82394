"""The halo of networks of several inputs, outputs, scales and one size, on images that show it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_networks import Layer, Stack, noise, same_axes, torch_run, worst_beyond
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks import Agreement, NetworkAxis, required_halo
from im2im_zoo.networks.tensor_axis import TensorAxis
from im2im_zoo.networks.tile_errors import ErrorCurve

EXACT = Agreement(relative=0.0, absolute=1e-5)
Arrays = list[NDArray[np.float32] | None]


def box(radius: int) -> nn.Module:
    conv = nn.Conv2d(1, 1, 2 * radius + 1, padding=radius, bias=False)
    nn.init.constant_(conv.weight, 1 / (2 * radius + 1) ** 2)
    return conv


@pytest.mark.parametrize("fixed", [False, True])
def test_halo_of_a_box_filter_is_its_radius_for_networks_of_any_and_of_one_size(fixed: bool) -> None:
    axes = same_axes("yx", 96 if fixed else 1, 8 if fixed else 1, fixed)
    found = required_halo(torch_run(box(5)), axes, [noise(1, 1, 96, 96)], [EXACT])
    assert (found.voxels, found.sufficient) == ((5, 5), (True, True))
    assert found.error <= 1


def test_what_counts_is_the_tolerance_of_the_package() -> None:
    distance = torch.arange(-20, 21).abs().float()
    kernel = torch.exp(-(distance[:, None] ** 2 + distance**2) / 18)
    network = nn.Conv2d(1, 1, 41, padding=20, bias=False)
    network.load_state_dict({"weight": (kernel / kernel.sum())[None, None]})
    halos = [
        required_halo(torch_run(network), same_axes("yx", 1, 1), [1 + noise(1, 1, 160, 160)], [agree]).voxels[
            0
        ]
        for agree in (Agreement(0, 1e-1), Agreement(0, 1e-2), Agreement(0, 1e-3), EXACT)
    ]
    assert halos == sorted(set(halos))
    assert halos[0] < 8
    assert halos[-1] <= 20


def test_tiles_agree_within_the_tolerance_with_the_halo_and_not_with_a_smaller_one() -> None:
    stack = Stack((Layer(3, padding=1), Layer(2, 2, pool=True), Layer(3, padding=1), Layer(2, 2, up=True)))
    run, axes = torch_run(stack.network()), same_axes("yx", 2, 2)
    image = noise(1, 1, 64, 64)
    whole = run([image])[0]
    agree = Agreement(relative=0.0, absolute=1e-6 + 1e-5 * float(np.abs(whole).max()))
    halo = required_halo(run, axes, [image], [agree]).voxels
    assert halo == (stack.reach(axes[0]),) * 2
    tile = run([np.ascontiguousarray(image[:, :, 16:48, 16:48])])[0]
    difference = np.abs(tile - whole[:, :, 16:48, 16:48])
    h = halo[0]
    assert difference[:, :, h:-h, h:-h].max() <= agree.absolute
    assert difference[:, :, h - 1 : 1 - h, h - 1 : 1 - h].max() > agree.absolute
    assert worst_beyond(run, axes, "y", h, 64, (16, 48))[0] <= 1e-5


def test_a_few_voxels_that_jump_ask_for_no_larger_halo_if_the_package_allows_them() -> None:
    # A threshold on top of a global mean: at a few voxels close to it, tiles and the whole differ wherever they are.
    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        image = inputs[0]
        assert image is not None
        return [(image > image.mean()).astype(np.float32)]

    image, axes = noise(1, 1, 256, 256), same_axes("yx", 16, 16)
    strict = required_halo(run, axes, [image], [Agreement(0, 0.5)])
    lenient = required_halo(run, axes, [image], [Agreement(0, 0.5, mismatched_per_million=20_000)])
    assert strict.sufficient == (False, False)
    assert (lenient.voxels, lenient.sufficient) == ((0, 0), (True, True))
    assert lenient.error == 2


def test_instance_norm_has_no_sufficient_halo_at_any_and_at_one_size(
    nuclei_2d: tuple[NDArray[np.uint16], object],
) -> None:
    image = nuclei_2d[0][None, None, :256, :256].astype(np.float32)
    run = torch_run(nn.InstanceNorm2d(1))
    for fixed in (False, True):
        axes = same_axes("yx", 256 if fixed else 16, 16, fixed)
        assert required_halo(run, axes, [image], [Agreement()]).sufficient == (False, False)


def test_an_image_that_is_no_larger_than_the_halo_shows_none() -> None:
    found = required_halo(torch_run(box(15)), same_axes("yx", 8, 8), [noise(1, 1, 16, 16)], [EXACT])
    assert found.sufficient == (False, False)
    assert max(found.tried) < 16


def test_an_image_smaller_than_the_network_takes_shows_nothing() -> None:
    found = required_halo(torch_run(box(1)), same_axes("yx", 32, 8), [noise(1, 1, 16, 64)], [EXACT])
    assert (found.sufficient, found.error) == ((False, False), float("inf"))


def test_an_image_off_the_grid_is_cropped_to_it() -> None:
    stack = Stack((Layer(4, 4), Layer(4, 4, up=True)))
    found = required_halo(torch_run(stack.network()), same_axes("yx", 8, 4), [noise(1, 1, 35, 38)], [EXACT])
    assert (found.voxels, found.sufficient) == ((0, 0), (True, True))


class Scaled(nn.Module):
    """Of an image and a guide of half its size: one output twice, one half as large and cropped by one voxel a side."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.guide, self.crop = box(2), box(1), nn.Conv2d(1, 1, 3)
        self.large = box(1)

    def forward(self, image: torch.Tensor, guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = F.avg_pool2d(image, 2) + self.guide(guide)
        return self.large(F.interpolate(self.image(image), scale_factor=2.0)), self.crop(small)


def scaled_axes() -> list[NetworkAxis]:
    half = Fraction(1, 2)
    ports = [
        ((TensorAxis(d), TensorAxis(d, half)), (TensorAxis(d, Fraction(2)), TensorAxis(d, half, -2)))
        for d in (2, 3)
    ]
    return [NetworkAxis(a, 16, 4, False, *p) for a, p in zip("yx", ports, strict=True)]


@pytest.mark.parametrize("fixed", [False, True])
def test_several_inputs_and_outputs_are_measured_in_voxels_of_the_first_input(fixed: bool) -> None:
    torch.manual_seed(0)
    axes = scaled_axes()
    if fixed:
        axes = [NetworkAxis(a.name, 64, 8, True, a.inputs, a.outputs) for a in axes]
    agree = [EXACT, EXACT]
    found = required_halo(
        torch_run(Scaled().eval()), axes, [noise(1, 1, 64, 64), noise(1, 1, 32, 32, seed=1)], agree
    )
    # The large output: 2 voxels and half a one more. The small one: one of the guide, which the crop does away with.
    assert (found.voxels, found.sufficient) == ((3, 3), (True, True))


def test_any_order_of_axes_is_cut_along_its_own() -> None:
    conv = nn.Conv2d(1, 1, (1, 7), padding=(0, 3))
    torch.manual_seed(0)

    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        assert inputs[0] is not None
        return [np.moveaxis(torch_run(conv)([np.ascontiguousarray(np.moveaxis(inputs[0], -1, 1))])[0], 1, -1)]

    axes = [NetworkAxis(a, 1, 1, False, (TensorAxis(d),), (TensorAxis(d),)) for d, a in ((1, "y"), (2, "x"))]
    found = required_halo(run, axes, [noise(1, 40, 40, 1)], [EXACT])
    assert found.voxels == (0, 3)


def test_an_output_that_does_not_have_the_axis_has_no_sufficient_halo_along_it() -> None:
    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        assert inputs[0] is not None
        return [inputs[0], inputs[0].mean(axis=3)]

    axes = [
        NetworkAxis("y", 1, 1, False, (TensorAxis(2),), (TensorAxis(2), TensorAxis(2))),
        NetworkAxis("x", 1, 1, False, (TensorAxis(3),), (TensorAxis(3), None)),
    ]
    found = required_halo(run, axes, [noise(1, 1, 32, 32)], [EXACT, EXACT])
    assert (found.voxels[0], found.sufficient[1]) == (0, False)


def test_outputs_of_another_size_than_declared_are_told_of() -> None:
    axes = [NetworkAxis("x", 8, 8, False, (TensorAxis(3),), (TensorAxis(3),))]

    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        assert inputs[0] is not None
        size = inputs[0].shape[3]
        return [inputs[0][..., : size if size == 64 else size - 1]]

    with pytest.raises(PackageError, match="correct the RDF"):
        required_halo(run, axes, [noise(1, 1, 8, 64)], [EXACT])


def test_no_number_equals_itself_and_nothing_else() -> None:
    values = np.array([1.0, np.nan, np.inf, np.nan, 1.0, np.inf])
    other = np.array([1.0, np.nan, np.inf, 1.0, np.nan, 1.0])
    assert Agreement().excess(values, other).tolist() == [0, 0, 0, np.inf, np.inf, np.inf]
    assert Agreement(0, 0).excess(np.zeros(2), np.array([0.0, 1.0])).tolist() == [0, np.inf]


def test_a_halo_that_is_seen_at_the_very_end_only_is_not_enough() -> None:
    worst = np.full(100, 2.0)
    worst[80:] = 0
    assert ErrorCurve(worst, worst <= 1).first_within() is None
    worst[70:] = 0
    assert ErrorCurve(worst, worst <= 1).first_within() == 70
