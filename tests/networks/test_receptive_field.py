"""How far a cut is felt, of networks for which it can be counted, on every engine that is here."""

import importlib.util
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from known_networks import (
    RUNS,
    Layer,
    Stack,
    basic_unet_path,
    noise,
    onnx_bytes,
    onnx_run,
    same_axes,
    stacks,
    torch_run,
    worst_beyond,
)
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks.cuts import Run
from im2im_zoo.networks.receptive_field import Extent, measure_receptive_field
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis

ENGINES = [
    "torch",
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="no openvino here"),
    ),
]

same3, valid3 = Layer(3, padding=1), Layer(3)
half, double = Layer(2, 2, pool=True), Layer(2, 2, up=True)
STACKS = {
    "one convolution": Stack((same3,)),
    "five convolutions": Stack((same3,) * 5),
    "dilated": Stack((same3, Layer(3, dilation=4, padding=4), Layer(3, dilation=16, padding=16))),
    "wide": Stack((Layer(31, padding=15),)),
    "asymmetric": Stack((Layer(2, 2), Layer(4, 2, padding=1, up=True))),
    "strided": Stack((same3, Layer(2, 2, pool=True), same3, same3)),
    "strided twice": Stack((Layer(4, 2, padding=1), same3, Layer(4, 2, padding=1), same3)),
    "by three": Stack((same3, Layer(3, 3, pool=True), same3)),
    "up": Stack((same3, Layer(2, 2, pool=True, up=True), same3)),
    "transposed": Stack((same3, Layer(4, 2, padding=1, up=True), same3)),
    "up by three": Stack((same3, Layer(3, 3, up=True), same3)),
    "down and up": Stack((same3, Layer(2, 2, pool=True), same3, Layer(2, 2, up=True), same3)),
    "valid": Stack((valid3,) * 4),
    "valid U": Stack(
        (valid3, valid3, half, valid3, valid3, half, valid3, double, valid3, valid3, double, valid3)
    ),
    "valid, half as large": Stack((valid3, valid3, Layer(2, 2, pool=True), valid3)),
}


def axes_of(stack: Stack) -> list[NetworkAxis]:
    return [stack.axis("y", 2), stack.axis("x", 3)]


def run_of(engine: str, network: nn.Module, size: int = 64) -> Run:
    if engine == "torch":
        return torch_run(network)
    return RUNS[engine](onnx_bytes(network, torch.zeros(1, 1, size, size)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", STACKS)
def test_the_reach_of_a_stack_of_layers_is_the_one_that_can_be_counted(name: str, engine: str) -> None:
    stack = STACKS[name]
    axes = axes_of(stack)
    run = run_of(engine, stack.network(), axes[0].minimum + 8 * stack.step)
    found = measure_receptive_field(run, axes, [noise(1, 1, 32, 32)], "x")
    assert (found.extent, found.voxels) == (Extent.EXACT, stack.reach(axes[1]))


@pytest.mark.parametrize("name", STACKS)
def test_tiles_with_the_reach_equal_the_whole(name: str) -> None:
    stack = STACKS[name]
    axes = axes_of(stack)
    run = torch_run(stack.network())
    halo = measure_receptive_field(run, axes, [noise(1, 1, 32, 32)], "y").voxels
    step, least = stack.step, axes[0].minimum
    begin, length = 3 * step, least + (-(-(2 * halo + 8) // step)) * step
    size = begin + length + 5 * step
    for tile in ((begin, begin + length), (0, length), (size - length, size)):
        worst, kept = worst_beyond(run, axes, "y", halo, size, tile)
        assert worst <= 1e-5
        assert kept


@given(stacks)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_reach_of_random_stacks_is_the_one_that_can_be_counted(stack: Stack) -> None:
    axes = axes_of(stack)
    for run in (torch_run(stack.network()), onnx_run(onnx_bytes(stack.network(), torch.zeros(1, 1, 64, 64)))):
        found = measure_receptive_field(run, axes, [noise(1, 1, 32, 32)], "x")
        assert (found.extent, found.voxels) == (Extent.EXACT, stack.reach(axes[1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_reach_of_a_basic_unet_is_that_of_its_longest_way(engine: str) -> None:
    torch.manual_seed(0)
    network = BasicUNet(2, 1, 1, features=(8, 8, 8, 16, 16, 8), norm="batch").eval()
    axes = same_axes("yx", 32, 16)
    expected = basic_unet_path().reach(axes[1])
    # A single voxel reaches 15 further, from the first to the last of a window of 16; no tile begins at the last.
    assert expected == 94
    found = measure_receptive_field(run_of(engine, network), axes, [noise(1, 1, 64, 64)], "x")
    assert (found.extent, found.voxels) == (Extent.EXACT, expected)


def test_each_axis_has_its_own_reach() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 2, (1, 3, 7), padding=(0, 1, 3)), nn.ReLU(), nn.Conv3d(2, 1, 1))
    axes = same_axes("zyx", 1, 1)
    assert [
        measure_receptive_field(torch_run(network), axes, [noise(1, 1, 4, 8, 8)], a).voxels for a in "zyx"
    ] == [0, 1, 3]


class Everywhere(nn.Module):
    """A channel gate (squeeze and excitation) of the mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]


class Attention(nn.Module):
    """Self-attention over all voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.MultiheadAttention(8, 2, batch_first=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        tokens = x.flatten(2).transpose(1, 2)
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return x + attended.transpose(1, 2).reshape(x.shape)


class Aligned(nn.Module):
    """Upsampling with aligned corners: where a voxel is taken from depends on the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = F.max_pool2d(self.conv(x), 2)
        return F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=True)


GLOBAL = {
    "instance norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 1, 1)
    ),
    "U-Net with instance norm": lambda: BasicUNet(2, 1, 1, features=(4, 4, 4, 8, 8, 4)).eval(),
    "gate of the mean": Everywhere,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GLOBAL)
def test_what_depends_on_the_whole_image_is_global(name: str, engine: str) -> None:
    torch.manual_seed(0)
    run = run_of(engine, GLOBAL[name]().eval())
    assert (
        measure_receptive_field(run, same_axes("yx", 32, 16), [noise(1, 1, 64, 64)], "x").extent
        is Extent.GLOBAL
    )


def test_attention_is_global() -> None:
    torch.manual_seed(0)
    found = measure_receptive_field(
        torch_run(Attention().eval()), same_axes("yx", 4, 4), [noise(1, 1, 16, 16)], "y"
    )
    assert found.extent is Extent.GLOBAL


def test_a_network_of_one_size_is_global_if_it_depends_on_all_of_it() -> None:
    torch.manual_seed(0)
    run = torch_run(GLOBAL["U-Net with instance norm"]())
    assert (
        measure_receptive_field(
            run, same_axes("yx", 256, 32, fixed=True), [noise(1, 1, 256, 256)], "x"
        ).extent
        is Extent.GLOBAL
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_upsampling_with_aligned_corners_cannot_be_tiled_though_it_is_local(fixed: bool) -> None:
    torch.manual_seed(0)
    axes = same_axes("yx", 64, 2, fixed)
    found = measure_receptive_field(torch_run(Aligned().eval()), axes, [noise(1, 1, 64, 64)], "x")
    assert found.extent is Extent.GLOBAL
    assert "position in the input" in found.note


def test_a_step_that_is_not_the_network_s_is_found_out() -> None:
    torch.manual_seed(0)
    network = BasicUNet(2, 1, 1, features=(4, 4, 4, 8, 8, 4), norm="batch").eval()
    # It pads itself, and so takes any size; its pooling windows begin where a tile does.
    assert (
        measure_receptive_field(torch_run(network), same_axes("yx", 32, 1), [noise(1, 1, 64, 64)], "x").extent
        is Extent.GLOBAL
    )


def test_what_a_layer_loses_at_a_cut_counts_though_nothing_depends_on_it() -> None:
    class ThereAndBack(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pad(F.pad(x, (5, -5)), (-5, 5))

    found = measure_receptive_field(
        torch_run(ThereAndBack()), same_axes("yx", 16, 1), [noise(1, 1, 32, 32)], "x"
    )
    assert (found.extent, found.voxels) == (Extent.EXACT, 5)


def test_a_network_of_one_size_is_probed_within_it() -> None:
    run = torch_run(Stack((same3,) * 7).network())
    axes = same_axes("yx", 64, 32, fixed=True)
    found = measure_receptive_field(run, axes, [noise(1, 1, 64, 64)], "y")
    assert (found.extent, found.voxels) == (Extent.EXACT, 7)


def test_a_reach_that_does_not_fit_into_the_one_size_is_at_least_what_was_seen() -> None:
    run = torch_run(basic_unet_path().network())
    found = measure_receptive_field(run, same_axes("yx", 128, 16, fixed=True), [noise(1, 1, 128, 128)], "y")
    assert (found.extent, found.voxels) == (Extent.AT_LEAST, 64)


def test_a_reach_beyond_the_limit_is_at_least_what_was_seen_and_no_global_operation() -> None:
    stack = basic_unet_path()
    run, axes = torch_run(stack.network()), same_axes("yx", 32, 16)
    assert measure_receptive_field(run, axes, [noise(1, 1, 32, 32)], "x", limit=128).extent is Extent.AT_LEAST
    assert measure_receptive_field(run, axes, [noise(1, 1, 32, 32)], "x", limit=256).voxels == 94


class TwoAndTwo(nn.Module):
    """An image, and a guide of half its size in the order (y, channel, x); gives twice and half the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.guide = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 5, padding=2)
        self.large, self.small = nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(2, 1, 3)

    def forward(self, image: torch.Tensor, guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.leaky_relu(self.first(image))
        y = F.leaky_relu(self.guide(guide.permute(1, 0, 2)[None]))
        return self.large(F.interpolate(x, scale_factor=2.0)), self.small(F.max_pool2d(x, 2) + y)


def two_and_two_axes() -> list[NetworkAxis]:
    half = Fraction(1, 2)
    outputs = [(TensorAxis(d, Fraction(2)), TensorAxis(d, half, -2)) for d in (2, 3)]
    return [
        NetworkAxis("y", 16, 4, False, (TensorAxis(2), TensorAxis(0, half)), outputs[0]),
        NetworkAxis("x", 16, 4, False, (TensorAxis(3), TensorAxis(2, half)), outputs[1]),
    ]


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_several_inputs_and_outputs_of_other_scales_and_orders_are_measured_in_voxels_of_the_first(
    engine: str,
) -> None:
    torch.manual_seed(0)
    network = TwoAndTwo().eval()
    if engine == "torch":
        run = torch_run(network)
    else:
        example = torch.zeros(1, 1, 16, 16), torch.zeros(8, 1, 8)
        run = two_and_two_onnx(network, example)
    example_arrays = [noise(1, 1, 16, 16), noise(8, 1, 8)]
    for name in "yx":
        found = measure_receptive_field(run, two_and_two_axes(), example_arrays, name)
        # The guide: two voxels of half the size, and one for the last convolution, which is cropped.
        assert (found.extent, found.voxels) == (Extent.EXACT, 6)


def two_and_two_onnx(network: nn.Module, example: tuple[torch.Tensor, torch.Tensor]) -> Run:
    import io
    import warnings

    buffer = io.BytesIO()
    free = {
        n: {d: f"{n}{d}" for d in dims}
        for n, dims in {"i": (2, 3), "g": (0, 2), "l": (2, 3), "s": (2, 3)}.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, buffer, dynamo=False, opset_version=17,
            input_names=["i", "g"], output_names=["l", "s"], dynamic_axes=free,
        )  # fmt: skip
    return onnx_run(buffer.getvalue())


def test_an_input_that_is_not_given_stays_so() -> None:
    def run(inputs: list[np.ndarray | None]) -> list[np.ndarray]:
        assert inputs[1] is None
        return torch_run(Stack((same3,)).network())([inputs[0]])

    axes = [
        NetworkAxis(a, 4, 4, False, (TensorAxis(d), TensorAxis(d)), (TensorAxis(d),))
        for d, a in ((2, "y"), (3, "x"))
    ]
    assert measure_receptive_field(run, axes, [noise(1, 1, 8, 8), None], "y").voxels == 1


def test_whole_numbers_are_replaced_by_those_of_the_example() -> None:
    conv = Stack((same3, same3)).network()

    def run(inputs: list[np.ndarray | None]) -> list[np.ndarray]:
        image = inputs[0]
        assert image is not None
        assert image.dtype == np.uint8
        assert set(np.unique(image)) <= {3, 7}
        return torch_run(conv)([image.astype(np.float32)])

    image = np.random.default_rng(0).choice(np.array([3, 7], np.uint8), (1, 1, 16, 16))
    assert measure_receptive_field(run, same_axes("yx", 4, 1), [image], "y").voxels == 2


def test_rounding_that_reaches_everywhere_does_not_look_like_reach() -> None:
    """As of a convolution by Fourier transform: every voxel has a little of every other one's rounding."""
    conv = torch_run(Stack((same3,) * 3).network())

    def run(inputs: list[np.ndarray | None]) -> list[np.ndarray]:
        (output,) = conv(inputs)
        finite = np.where(np.isfinite(output), output, 0)
        dust = np.float32(np.abs(finite).max() * 1e-7 * (1 + np.cos(np.nansum(output, dtype=np.float64))))
        return [output + dust + (np.nan if np.isnan(output).any() else 0)]

    found = measure_receptive_field(run, same_axes("yx", 16, 1), [noise(1, 1, 32, 32)], "x")
    assert (found.extent, found.voxels) == (Extent.EXACT, 3)
    assert "rounding" in found.note


def test_a_network_that_takes_none_of_its_declared_sizes_is_refused_in_its_own_words() -> None:
    with pytest.raises(PackageError, match="expected input"):
        measure_receptive_field(
            torch_run(nn.Conv2d(3, 1, 3)), same_axes("yx", 16, 1), [noise(1, 1, 16, 16)], "x"
        )
