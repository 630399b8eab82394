"""Packages of every kind that the format can describe: several tensors, sizes that follow, crops, scales, tables, padding."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from packages_for_tests import build_model, follows, output_axis, tensor_axis, tensor_in, tensor_out
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import PlanError
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime import open_network, plan_prediction, predict_array, predict_arrays

PLANE = ("batch", "channel")


def seeded(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network.eval()


def image(*shape: int, dims: tuple[str, ...] = ("y", "x"), seed: int = 0) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return xr.DataArray(values, dims=dims)


def run(network: nn.Module, *arrays: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        found = network(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
    return [t.numpy() for t in (found if isinstance(found, list | tuple) else [found])]


class TwoInTwoOut(nn.Module):
    """Takes an image and one of half its size; gives one of its size and one of half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 2, 3, padding=1)
        self.coarse = nn.Conv2d(1, 2, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        coarse = torch.tanh(self.coarse(y))
        both = torch.cat([torch.tanh(self.fine(x)), F.interpolate(coarse, scale_factor=2.0)], 1)
        full = self.last(both)
        return full, F.avg_pool2d(full, 2)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, nn.Module]:
    network = seeded(TwoInTwoOut())
    sizes = [tensor_axis("y", (32, 4)), tensor_axis("x", (32, 4))]
    half = [
        tensor_axis("y", follows("raw", "y"), scale=2.0),
        tensor_axis("x", follows("raw", "x"), scale=2.0),
    ]
    folder = build_model(
        tmp_path_factory.mktemp("two") / "package",
        network,
        [
            tensor_in("raw", [*map(_plain, PLANE), *sizes]),
            tensor_in("guide", [*map(_plain, PLANE), *half]),
        ],
        [
            tensor_out(
                "full", [*map(_plain, PLANE), *(output_axis(a, follows("raw", a), halo=8) for a in "yx")]
            ),
            tensor_out(
                "half", [*map(_plain, PLANE), *(output_axis(a, follows("raw", a), scale=2.0) for a in "yx")]
            ),
        ],
        examples=[torch.randn(1, 1, 64, 64), torch.randn(1, 1, 32, 32)],
    )
    return measured(folder), network


def measured(folder: Path) -> Package:
    """Open a package and measure its engines here, sooner than in a subprocess; the user's cache keeps which is fastest."""
    package = open_package(folder)
    open_network(package, in_process=True)
    return package


def _plain(kind: str) -> object:
    return tensor_axis(kind, ["gray"] if kind == "channel" else None)


def test_several_inputs_and_outputs_of_several_scales_are_tiled_exactly(two):
    package, network = two
    raw, guide = image(88, 100), image(44, 50, seed=1)
    full, half = run(network, raw.values[None, None], guide.values[None, None])
    found = predict_arrays(package, {"raw": raw, "guide": guide}, tile={"y": 32, "x": 40}, halo=8)
    np.testing.assert_allclose(found["full"], full[0, 0], atol=1e-5)
    np.testing.assert_allclose(found["half"], half[0, 0], atol=1e-5)


def test_sizes_off_the_grid_work_for_all_tensors(two):
    package, _ = two
    raw, guide = image(61, 47), image(31, 24, seed=1)
    whole = predict_arrays(package, {"raw": raw, "guide": guide}, whole=True)
    tiled = predict_arrays(package, {"raw": raw, "guide": guide}, tile={"y": 32, "x": 36}, halo=8)
    assert whole["full"].shape == (61, 47)
    assert whole["half"].shape == (30, 23)
    for name in ("full", "half"):
        np.testing.assert_allclose(tiled[name], whole[name], atol=1e-5)


def test_a_missing_or_unknown_or_unfitting_input_is_refused_with_the_names(two):
    package, _ = two
    with pytest.raises(PlanError, match="--input guide=PATH"):
        plan_prediction(package, image(64, 64))
    with pytest.raises(PlanError, match="no input mask; choose from raw, guide"):
        plan_prediction(package, {"raw": image(64, 64), "mask": image(32, 32)})
    with pytest.raises(PlanError, match="has 40 voxels along y, but needs 32"):
        plan_prediction(package, {"raw": image(64, 64), "guide": image(40, 32)})
    raw = image(3, 64, 64, dims=("time", "y", "x"))
    with pytest.raises(PlanError, match="they must be equal"):
        plan_prediction(package, {"raw": raw, "guide": image(2, 32, 32, dims=("time", "y", "x"))})


def test_an_axis_that_one_image_has_alone_is_looped_over_for_both(two):
    package, network = two
    raw, guide = image(2, 40, 40, dims=("time", "y", "x")), image(20, 20, seed=1)
    found = predict_arrays(package, {"raw": raw, "guide": guide})
    full, _ = run(network, raw.values[1][None, None], guide.values[None, None])
    assert found["full"].dims == ("time", "y", "x")
    np.testing.assert_allclose(found["full"][1], full[0, 0], atol=1e-5)


class Cropping(nn.Module):
    """Convolutions without padding: 4 voxels are lost at each end; the output has half the voxels of what is left."""

    def __init__(self, halves: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 5)
        self.second = nn.Conv2d(3, 1, 5)
        self.halves = halves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.tanh(self.first(x)))
        return F.max_pool2d(x, 2) if self.halves else x


def cropping(folder: Path, *, halves: bool = False, fixed: bool = False) -> tuple[Package, nn.Module]:
    network = seeded(Cropping(halves))
    sizes = [tensor_axis(a, 40 if fixed else (24, 4)) for a in "yx"]
    scale = 2.0 if halves else 1.0
    # Sizes: n - 8, or n / 2 - 4.
    outs = [output_axis(a, follows("raw", a, -4 if halves else -8), scale=scale) for a in "yx"]
    path = build_model(
        folder,
        network,
        [tensor_in("raw", [*map(_plain, PLANE), *sizes])],
        [tensor_out("out", [*map(_plain, PLANE), *outs])],
        examples=[torch.randn(1, 1, 40, 40)],
    )
    return measured(path), network


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (90, 77),
        pytest.param((40, 40), marks=pytest.mark.slow),
        pytest.param((13, 150), marks=pytest.mark.slow),
    ],
)
def test_a_network_that_crops_gives_the_whole_field_in_tiles(tmp_path, halves, fixed, shape):
    package, network = cropping(tmp_path / "p", halves=halves, fixed=fixed)
    raw = image(*shape)
    step = 2 if halves else 1
    found = predict_array(package, raw, tile={"y": 40, "x": 40})
    assert found.shape == tuple(n // step for n in shape)
    # Mirrored by what is cropped, as the U-Net's paper does it, and up to the network's sizes at the far end.
    padded = np.pad(raw.values, [(4, 4 + 40), (4, 4 + 40)], mode="reflect")
    (expected,) = run(network, padded[None, None])
    cut = tuple(slice(0, n // step) for n in shape)
    np.testing.assert_allclose(found, expected[0, 0][cut], atol=1e-5)


def test_what_a_cropping_network_gives_lies_where_it_was_seen(tmp_path):
    package, network = cropping(tmp_path / "p")
    raw = image(64, 64)
    (inner,) = run(network, raw.values[None, None])
    found = predict_array(package, raw, tile={"y": 32, "x": 32})
    np.testing.assert_allclose(found[4:60, 4:60], inner[0, 0], atol=1e-5)


class Score(nn.Module):
    """One number an image, and the image."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(dim=(2, 3)), x * 2


def test_an_output_without_the_axes_of_the_image_takes_it_whole(tmp_path):
    path = build_model(
        tmp_path / "p",
        Score(),
        [tensor_in("raw", [*map(_plain, PLANE), tensor_axis("y", (8, 1)), tensor_axis("x", (8, 1))])],
        [
            tensor_out("score", [tensor_axis("batch"), tensor_axis("channel", ["a"])]),
            tensor_out("double", [*map(_plain, PLANE), *(output_axis(a, follows("raw", a)) for a in "yx")]),
        ],
    )
    package = open_package(path)
    raw = image(3, 30, 20, dims=("time", "y", "x"))
    found = predict_arrays(package, raw)
    np.testing.assert_allclose(found["score"], raw.mean(("y", "x")), atol=1e-6)
    np.testing.assert_allclose(found["double"], 2 * raw, atol=1e-6)
    assert found["score"].dims == ("time",)
    with pytest.raises(PlanError, match="cannot cut along"):
        predict_arrays(package, raw, tile={"y": 16})


class Bright(nn.Module):
    """The places of voxels above 0: as many as there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(x[0, 0] > 1.5)[None].to(torch.float32)


def test_an_output_whose_size_depends_on_the_data_is_a_table(tmp_path):
    path = build_model(
        tmp_path / "p",
        Bright(),
        [tensor_in("raw", [*map(_plain, PLANE), tensor_axis("y", (8, 1)), tensor_axis("x", (8, 1))])],
        [
            tensor_out(
                "places",
                [
                    tensor_axis("batch"),
                    output_axis("index", spec.DataDependentSize()),
                    tensor_axis("channel", ["y", "x"]),
                ],
            )
        ],
    )
    raw = image(25, 31)
    found = predict_array(open_package(path), raw)
    assert found.dims == ("index", "channel")
    np.testing.assert_array_equal(found, np.argwhere(raw.values > 1.5))


class Optional_(nn.Module):
    """Adds what it is given, if it is given anything."""

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        if y is not None:
            return x + y
        return x


def test_an_optional_input_may_be_left_out(tmp_path):
    axes = [*map(_plain, PLANE), tensor_axis("y", (8, 1)), tensor_axis("x", (8, 1))]
    path = build_model(
        tmp_path / "p",
        Optional_(),
        [tensor_in("raw", axes), tensor_in("more", axes, optional=True)],
        [tensor_out("out", [*map(_plain, PLANE), *(output_axis(a, follows("raw", a)) for a in "yx")])],
    )
    package = open_package(path)
    raw, more = image(20, 30), image(20, 30, seed=1)
    np.testing.assert_array_equal(predict_array(package, raw), raw)
    np.testing.assert_allclose(predict_array(package, {"raw": raw, "more": more}), raw + more, atol=1e-6)


class Shifted(nn.Module):
    """The voxel 3 to the right and below: what lies beyond the end of the image shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 3:, 3:]


@pytest.mark.parametrize(
    ("pad", "mode", "more"),
    [
        (None, "reflect", {}),
        (spec.ReflectPadding(), "reflect", {}),
        (spec.SymmetricPadding(), "symmetric", {}),
        (spec.EdgePadding(), "edge", {}),
        (spec.ConstantPadding(value=7), "constant", {"constant_values": 7}),
    ],
)
def test_the_image_is_padded_as_the_package_says(tmp_path, pad, mode, more):
    # -3 at the far end alone is described as a crop of 1 and 2: the padding of both ends shows.
    path = build_model(
        tmp_path / "p",
        Shifted(),
        [
            tensor_in(
                "raw", [*map(_plain, PLANE), tensor_axis("y", (8, 4)), tensor_axis("x", (8, 4))], pad=pad
            )
        ],
        [tensor_out("out", [*map(_plain, PLANE), *(output_axis(a, follows("raw", a, -3)) for a in "yx")])],
    )
    raw = image(13, 10)
    padded = np.pad(raw.values, [(2, 20), (2, 20)], mode=mode, **more)
    for tile in (None, {"y": 12, "x": 12}):
        found = predict_array(open_package(path), raw, tile=tile, halo=0)
        np.testing.assert_array_equal(found, padded[1 + 3 : 14 + 3, 1 + 3 : 11 + 3])


class Members(nn.Module):
    """The mean over an axis of things without an order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1, keepdim=True)


def test_an_index_axis_is_taken_whole_at_the_sizes_that_the_model_takes(tmp_path):
    path = build_model(
        tmp_path / "p",
        Members(),
        [
            tensor_in(
                "raw",
                [
                    tensor_axis("batch"),
                    tensor_axis("index", (2, 2)),
                    tensor_axis("y", (8, 1)),
                    tensor_axis("x", (8, 1)),
                ],
            )
        ],
        [
            tensor_out(
                "out",
                [
                    tensor_axis("batch"),
                    tensor_axis("channel", ["mean"]),
                    *(output_axis(a, follows("raw", a)) for a in "yx"),
                ],
            )
        ],
    )
    package = open_package(path)
    members = image(4, 20, 18, dims=("index", "y", "x"))
    found = predict_array(package, members, tile={"y": 8, "x": 10})
    np.testing.assert_allclose(found, members.mean("index"), atol=1e-6)
    with pytest.raises(PlanError, match="along index, but the image has 3"):
        predict_array(package, members[:3])


class OverTime(nn.Module):
    """A convolution over time and space; axes batch, time, y, x, channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


def test_time_may_be_an_axis_of_the_network_and_channels_come_last(tmp_path):
    network = seeded(OverTime())
    sizes = [tensor_axis("time", (3, 1)), tensor_axis("y", (8, 1)), tensor_axis("x", (8, 1))]
    outs = [
        output_axis("time", follows("raw", "time"), halo=1),
        output_axis("y", follows("raw", "y"), halo=1),
        output_axis("x", follows("raw", "x"), halo=1),
    ]
    path = build_model(
        tmp_path / "p",
        network,
        [tensor_in("raw", [tensor_axis("batch"), *sizes, tensor_axis("channel", ["gray"])])],
        [tensor_out("out", [tensor_axis("batch"), *outs, tensor_axis("channel", ["result"])])],
    )
    movie = image(2, 9, 20, 15, dims=("z", "time", "y", "x"))
    found = predict_array(open_package(path), movie, tile={"y": 10, "x": 8}, halo=1)
    assert found.dims == ("time", "z", "y", "x")
    (expected,) = run(network, movie.values[1][None, ..., None])
    np.testing.assert_allclose(found.isel(z=1), expected[0, ..., 0], atol=1e-5)
