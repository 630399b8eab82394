"""Blind spots: what is hidden stays hidden, is drawn as the papers say, and is replaced by what is near."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.blind_spots import BlindSpots

SPACE = {2: (32, 24), 3: (8, 12, 16)}
LINES: dict[int, list[Any]] = {2: [None, (0, 4), (3, 2)], 3: [None, (0, 0, 5), (2, 0, 3)]}
CASES = [
    pytest.param(ndim, strategy, extent, id=f"{ndim}D-{strategy}-{extent}")
    for ndim, strategy in product((2, 3), ("uniform", "median"))
    for extent in LINES[ndim]
]


def network(ndim: int) -> nn.Module:
    """Two convolutions that see far more than the lines are long, and both channels."""
    conv = nn.Conv2d if ndim == 2 else nn.Conv3d
    return nn.Sequential(conv(2, 4, 7, padding=3), nn.Tanh(), conv(4, 2, 7, padding=3))


def images(ndim: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 2, *SPACE[ndim], dtype=torch.float64)


@pytest.mark.parametrize(("ndim", "strategy", "extent"), CASES)
def test_what_is_predicted_of_a_voxel_does_not_depend_on_its_own_value(
    ndim: int, strategy: Any, extent: Any
) -> None:
    torch.manual_seed(0)
    blind, net, image = BlindSpots(1 / 16, strategy, 3, extent), network(ndim).double(), images(ndim)
    spots = blind.draw(image)
    image.requires_grad_()
    prediction = net(blind.hide(image, spots))
    places = torch.nonzero(spots)
    for place in places[torch.randperm(len(places))[:12]]:
        at = tuple(place.tolist())
        [gradient] = torch.autograd.grad(prediction[at], image, retain_graph=True)
        assert gradient[at] == 0
        assert gradient[at[0]].abs().sum() > 0, "it depends on something"
        # Nor, where lines are hidden, on any value along them.
        for axis, reach in enumerate(extent or ()):
            line = np.arange(at[2 + axis] - reach, at[2 + axis] + reach + 1)
            line = line[(line >= 0) & (line < SPACE[ndim][axis])]
            assert not gradient[(*at[: 2 + axis], torch.from_numpy(line), *at[3 + axis :])].any()


@pytest.mark.parametrize(("ndim", "strategy", "extent"), CASES)
def test_hidden_values_are_gone_from_the_whole_image(ndim: int, strategy: Any, extent: Any) -> None:
    blind, image = BlindSpots(1 / 16, strategy, 3, extent), images(ndim)
    spots = blind.draw(image)
    marked = torch.where(spots, torch.nan, image)
    # A NaN that was looked at would show: the uniform draw would copy it, a median would be moved by it.
    assert not blind.hide(marked, spots).isnan().any()
    changed = torch.where(spots, 1e6, image)
    once, again = (blind.hide(values, spots, torch.Generator().manual_seed(1)) for values in (image, changed))
    assert torch.equal(once, again)


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_not_hidden_is_left_as_it_is(ndim: int) -> None:
    blind, image = BlindSpots(1 / 16, extent=(0,) * (ndim - 1) + (2,)), images(ndim)
    spots = blind.draw(image)
    seen = blind.hide(image, spots)
    near = torch.stack([spots.roll(shift, -1) for shift in range(-2, 3)]).any(dim=0)
    assert torch.equal(seen[~near], image[~near])
    assert (seen[spots] != image[spots]).all()


@pytest.mark.parametrize(("shape", "fraction", "side"), [((64, 64), 1 / 64, 8), ((16, 32, 32), 1 / 64, 4)])
def test_each_box_has_one_spot_and_each_channel_its_own(
    shape: tuple[int, ...], fraction: float, side: int
) -> None:
    torch.manual_seed(0)
    spots = BlindSpots(fraction).draw(torch.zeros(3, 2, *shape))
    for axis in range(2, 2 + len(shape)):
        spots = spots.unfold(axis, side, side)
    counts = spots.flatten(2 + len(shape)).sum(dim=-1)
    assert (counts == 1).all(), "64 of 64 x 64 pixels, as in the paper"
    flat = spots.flatten(2)
    assert not torch.equal(flat[:, 0], flat[:, 1])
    assert not torch.equal(flat[0], flat[1])


@pytest.mark.parametrize("size", [(16, 16), (21, 13)])
def test_all_voxels_are_drawn_alike_often_also_where_boxes_do_not_fit(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    blind, times = BlindSpots(1 / 16), 4000
    often = blind.draw(torch.zeros(times, 1, *size)).float().mean(dim=(0, 1))
    # A binomial of 4000 draws; five standard deviations.
    assert (often - 1 / 16).abs().max() < 5 * (1 / 16 * 15 / 16 / times) ** 0.5


def test_uniform_gives_each_visible_neighbour_alike_often_and_never_the_centre() -> None:
    torch.manual_seed(0)
    image = torch.arange(25.0).view(1, 1, 5, 5).repeat(6000, 1, 1, 1)
    spots = torch.zeros_like(image, dtype=torch.bool)
    spots[..., 2, 2] = True
    spots[..., 2, 3] = True
    values = BlindSpots(0.04, radius=1).hide(image, spots)[:, 0, 2, 2].long()
    counts = values.bincount(minlength=25)
    neighbours = [6, 7, 8, 11, 16, 17, 18]
    assert set(counts.nonzero().flatten().tolist()) == set(neighbours)
    assert (counts[neighbours] / 6000 - 1 / 7).abs().max() < 0.025


def test_median_is_that_of_numpy_without_what_is_hidden_or_outside() -> None:
    image = torch.rand(1, 1, 9, 10, dtype=torch.float64)
    spots = torch.zeros_like(image, dtype=torch.bool)
    for place in ((0, 0), (4, 4), (4, 5), (8, 3)):
        spots[0, 0][place] = True
    seen = BlindSpots(0.04, "median", radius=2).hide(image, spots)
    visible = np.where(spots[0, 0], np.nan, image[0, 0])
    for y, x in ((0, 0), (4, 4), (4, 5), (8, 3)):
        window = visible[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert seen[0, 0, y, x] == pytest.approx(np.nanmedian(window))


def test_a_line_is_hidden_along_its_axis_alone() -> None:
    image, blind = torch.rand(1, 1, 9, 9), BlindSpots(0.04, radius=2, extent=(0, 3))
    spots = torch.zeros_like(image, dtype=torch.bool)
    spots[0, 0, 4, 1] = True
    changed = (blind.hide(image, spots) != image)[0, 0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[4, :5] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strategy", ["uniform", "median"])
def test_the_same_seed_hides_the_same_in_the_type_of_the_image(strategy: Any, dtype: torch.dtype) -> None:
    image, blind = torch.rand(1, 1, 16, 16).to(dtype), BlindSpots(1 / 16, strategy)

    def once() -> Tensor:
        drawn = torch.Generator().manual_seed(3)
        return blind.hide(image, blind.draw(image, drawn), drawn)

    assert once().dtype == dtype
    assert torch.equal(once(), once())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.5}, "masked_fraction is 0.5; give more than 0"),
        ({"fraction": 0.05, "strategy": "mean"}, "strategy is 'mean': choose uniform or median"),
        ({"fraction": 0.05, "radius": 0}, "radius is 0"),
        ({"fraction": 0.05, "extent": (0, -1)}, "an extent 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        BlindSpots(**arguments)


def test_patches_that_are_too_small_and_windows_without_anything_visible_are_refused() -> None:
    image = torch.rand(1, 1, 8, 16)
    with pytest.raises(TrainingError, match=r"patches of \[8, 16\] voxels are smaller than the boxes of 10"):
        BlindSpots(0.01).draw(image)
    everywhere = torch.ones_like(image, dtype=torch.bool)
    with pytest.raises(TrainingError, match="no visible neighbour within 5 voxels"):
        BlindSpots(0.05).hide(image, everywhere)
    with pytest.raises(TrainingError, match="extent has 1 numbers, but the images have 2 space axes"):
        BlindSpots(0.05, extent=(1,)).hide(image, everywhere)
