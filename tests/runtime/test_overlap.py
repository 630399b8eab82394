"""The halo of packages, measured on the network that runs them."""

import dataclasses
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from packages_for_tests import Doubling, build_package, small_unet
from torch import nn

from im2im_zoo.networks import Agreement, NetworkAxis
from im2im_zoo.networks.tensor_axis import TensorAxis
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.measure.overlap import Overlap, ReferenceTensors, declared_halo, measure_overlap

# Of `small_unet`: two levels of pooling and a convolution at each, down and up: 1 + 2 + 4 + 2 + 1 and its last one.
REACH = 11


class ModuleEngine:
    """A torch module as an engine; it counts its calls."""

    weights_format, backend, precision, device = "torchscript", "torch", "float32", "cpu"

    def __init__(self, network: nn.Module) -> None:
        self.network, self.calls = network, 0

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        self.calls += 1
        with torch.inference_mode():
            result = self.network(*(None if a is None else torch.from_numpy(a) for a in inputs))
        return [t.numpy() for t in ([result] if isinstance(result, torch.Tensor) else result)]


def axes_of(minimum: int = 36, step: int = 4, *, fixed: bool = False, scale: int = 1) -> list[NetworkAxis]:
    """y and x of (batch, channel, y, x), with an output that is `scale` times as large."""
    places = [((TensorAxis(d),), (TensorAxis(d, Fraction(scale)),)) for d in (2, 3)]
    return [NetworkAxis(a, minimum, step, fixed, *p) for a, p in zip("yx", places, strict=True)]


def sample(*shape: int, agree: Agreement | None = None) -> ReferenceTensors:
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return ReferenceTensors([image], [agree or Agreement()])


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A U-Net that declares a halo of 4, less than it reaches."""
    return open_package(build_package(tmp_path_factory.mktemp("unet") / "package", small_unet(), halo=4))


@pytest.fixture(scope="module")
def normalising(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, nn.Module]:
    """A network that normalises over all that it sees."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.InstanceNorm2d(1)).eval()
    folder = tmp_path_factory.mktemp("norm") / "package"
    return open_package(build_package(folder, network, halo=8)), network


def test_the_halo_is_the_smallest_within_the_tolerance_on_the_test_tensors(
    unet: Package, tmp_path: Path
) -> None:
    measured = [
        measure_overlap(
            unet,
            ModuleEngine(small_unet()),
            axes_of(),
            sample=sample(1, 1, 96, 96, agree=Agreement(0, tolerance)),
            cache=tmp_path,
        )
        for tolerance in (1e-6, 0.1)
    ]
    assert measured[0].halo == {"y": REACH, "x": REACH}
    assert all(4 <= n < REACH for n in measured[1].halo.values())
    for overlap in measured:
        assert (overlap.source, overlap.is_global) == ("test tensor", False)
        assert overlap.reach == {"y": REACH, "x": REACH}
        assert overlap.error is not None
        assert overlap.error <= 1


def test_the_halo_is_never_below_the_declared_one(unet: Package, tmp_path: Path) -> None:
    loose = sample(1, 1, 96, 96, agree=Agreement(0, 10))
    overlap = measure_overlap(unet, ModuleEngine(small_unet()), axes_of(), sample=loose, cache=tmp_path)
    assert overlap.halo == {"y": 4, "x": 4}
    assert overlap.source == "declared"


def test_exact_is_the_reach_whatever_is_declared_or_tolerated(tmp_path: Path) -> None:
    package = open_package(build_package(tmp_path / "package", small_unet(), halo=16))
    loose = sample(1, 1, 96, 96, agree=Agreement(0, 10))
    overlap = measure_overlap(
        package, ModuleEngine(small_unet()), axes_of(), exact=True, sample=loose, cache=tmp_path
    )
    assert overlap.halo == {"y": REACH, "x": REACH}
    assert (overlap.source, overlap.is_global) == ("receptive field", False)


def test_a_test_tensor_too_small_to_show_the_halo_leaves_the_reach(unet: Package, tmp_path: Path) -> None:
    small = sample(1, 1, 36, 36, agree=Agreement(0, 1e-6))
    overlap = measure_overlap(unet, ModuleEngine(small_unet()), axes_of(), sample=small, cache=tmp_path)
    assert overlap.halo == {"y": REACH, "x": REACH}
    assert overlap.source == "receptive field"
    assert "too small" in overlap.note


def test_how_far_the_network_reaches_does_not_matter_along_an_axis_that_no_tile_cuts(tmp_path: Path) -> None:
    """A stack of as many planes as the network takes: only that no halo is enough along y is told."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, (1, 129), padding=(0, 64))).eval()
    package = open_package(build_package(tmp_path / "package", network, halo=4))
    y, x = axes_of()
    axes = [y, dataclasses.replace(x, minimum=96, fixed=True)]
    options: dict[str, Any] = {"sample": sample(1, 1, 96, 96), "cache": tmp_path}
    assert measure_overlap(package, ModuleEngine(network), axes, **options).is_global
    overlap = measure_overlap(package, ModuleEngine(network), axes, uncut=["x"], **options)
    assert not overlap.is_global
    assert overlap.halo == {"y": 4, "x": 0}


@pytest.mark.parametrize("exact", [False, True])
def test_a_network_that_normalises_over_the_image_is_global(
    normalising: tuple[Package, nn.Module], tmp_path: Path, exact: bool
) -> None:
    package, network = normalising
    overlap = measure_overlap(
        package,
        ModuleEngine(network),
        axes_of(),
        exact=exact,
        sample=sample(1, 1, 128, 128),
        cache=tmp_path,
    )
    assert overlap.is_global
    assert overlap.reach == {"y": None, "x": None}
    assert all(n >= 8 for n in overlap.halo.values())
    assert "depends on the whole image" in overlap.note


def test_one_size_is_measured_with_tiles_of_that_size(tmp_path: Path) -> None:
    package = open_package(build_package(tmp_path / "package", small_unet(), minimum=64, fixed=True, halo=4))
    strict = sample(1, 1, 64, 64, agree=Agreement(0, 1e-6))
    overlap = measure_overlap(
        package, ModuleEngine(small_unet()), axes_of(64, 16, fixed=True), sample=strict, cache=tmp_path
    )
    assert overlap.halo == {"y": REACH, "x": REACH}
    assert not overlap.is_global


def test_one_size_that_is_too_small_to_show_anything_is_blended(tmp_path: Path) -> None:
    package = open_package(build_package(tmp_path / "package", small_unet(), minimum=16, fixed=True, halo=4))
    strict = sample(1, 1, 16, 16, agree=Agreement(0, 1e-6))
    overlap = measure_overlap(
        package, ModuleEngine(small_unet()), axes_of(16, 4, fixed=True), sample=strict, cache=tmp_path
    )
    assert overlap.is_global
    assert "no halo is known" in overlap.note


def test_voxels_are_those_of_the_input_where_the_output_is_larger(tmp_path: Path) -> None:
    network = Doubling().eval()
    package = open_package(build_package(tmp_path / "package", network, scale=0.5, minimum=8, step=1, halo=2))
    axes = axes_of(8, 1, scale=2)
    assert declared_halo(package, axes) == {"y": 1, "x": 1}
    strict = sample(1, 1, 64, 64, agree=Agreement(0, 1e-6))
    overlap = measure_overlap(package, ModuleEngine(network), axes, sample=strict, cache=tmp_path)
    assert overlap.halo == {"y": 1, "x": 1}


def test_along_an_axis_that_an_output_lacks_nothing_is_cut(unet: Package, tmp_path: Path) -> None:
    class Projecting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(3, keepdim=True)

    axes = axes_of()
    kept = [axes[0], dataclasses.replace(axes[1], outputs=(None,))]
    overlap = measure_overlap(
        unet, ModuleEngine(Projecting()), kept, sample=sample(1, 1, 64, 64), cache=tmp_path
    )
    assert overlap.halo == {"y": 4, "x": 0}
    assert not overlap.is_global
    assert list(overlap.reach) == ["y"]


def test_what_was_measured_is_not_measured_again_until_something_changes(
    unet: Package, tmp_path: Path
) -> None:
    engine, axes = ModuleEngine(small_unet()), axes_of()

    def calls(**changes: Any) -> int:
        before = engine.calls
        arguments: dict[str, Any] = {"sample": sample(1, 1, 64, 64), "cache": tmp_path} | changes
        found.append(measure_overlap(unet, engine, axes, **arguments))
        return engine.calls - before

    found: list[Overlap] = []
    assert calls() > 0
    assert calls() == 0
    assert found[0] == found[1]
    assert calls(exact=True) > 0
    assert calls(sample=sample(1, 1, 72, 64)) > 0
    assert calls(sample=sample(1, 1, 64, 64, agree=Agreement(0, 1e-2))) > 0
    engine.precision = "bfloat16"
    assert calls() > 0
    assert calls() == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"halo": {}}', "\x00"])
def test_a_damaged_cache_is_measured_anew(unet: Package, tmp_path: Path, content: str) -> None:
    arguments: dict[str, Any] = {"sample": sample(1, 1, 64, 64), "cache": tmp_path}
    first = measure_overlap(unet, ModuleEngine(small_unet()), axes_of(), **arguments)
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["halo"] == first.halo
    file.write_text(content)
    assert measure_overlap(unet, ModuleEngine(small_unet()), axes_of(), **arguments) == first
    assert json.loads(file.read_text())["halo"] == first.halo


def test_a_cache_that_cannot_be_written_does_not_matter(unet: Package, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    overlap = measure_overlap(
        unet,
        ModuleEngine(small_unet()),
        axes_of(),
        sample=sample(1, 1, 64, 64),
        cache=tmp_path / "file" / "cache",
    )
    assert not overlap.is_global


class WithMask(nn.Module):
    """An image, and a mask that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        result = self.conv(image)
        return result if mask is None else result * self.conv(mask)


def test_an_optional_input_without_an_image_is_left_out(unet: Package, tmp_path: Path) -> None:
    inputs = [unet.inputs[0], unet.inputs[0].model_copy(update={"optional": True})]
    description = unet.description.model_copy(update={"inputs": inputs})
    package = dataclasses.replace(unet, description=description)
    image = np.random.default_rng(0).standard_normal((1, 1, 64, 64), dtype=np.float32)
    # The mask's axes are not known, as of an input for which there is no image; its size would not fit the tiles.
    axes = [
        NetworkAxis(a, 8, 1, False, (TensorAxis(d), None), (TensorAxis(d),)) for d, a in ((2, "y"), (3, "x"))
    ]
    both = ReferenceTensors([image, image], [Agreement(0, 1e-6)])
    overlap = measure_overlap(package, ModuleEngine(WithMask()), axes, sample=both, cache=tmp_path)
    assert overlap.reach == {"y": 2, "x": 2}


def test_without_test_tensors_the_reach_is_taken(unet: Package, tmp_path: Path) -> None:
    overlap = measure_overlap(unet, ModuleEngine(small_unet()), axes_of(), cache=tmp_path)
    assert overlap.halo == {"y": REACH, "x": REACH}
    assert (overlap.source, overlap.error) == ("receptive field", None)
