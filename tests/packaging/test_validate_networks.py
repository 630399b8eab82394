"""`validate_package` finds networks that are not what their packages say: at random, of one batch, of other sizes or halos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from packages_for_tests import build_model, follows, output_axis, tensor_axis, tensor_in, tensor_out
from torch import nn

from im2im_zoo.packaging import ValidationReport, validate_package


class Blur(nn.Module):
    """Means of 9 x 9 voxels: a cut is felt 4 voxels away, as much as at any."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 9, stride=1, padding=4)


class Random(nn.Module):
    """Dropout that is left on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Single(nn.Module):
    """Takes one image at a time, as a traced network may."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(1, 1, x.shape[2], x.shape[3]) * 2


class OverBatch(nn.Module):
    """Subtracts the mean of the whole batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean()


class Quarters(nn.Module):
    """Takes multiples of 4."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4.0)


class ManyNumbers(nn.Module):
    """Divides by zero where the image is the mean of it, beyond the size of the test image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / float(x.shape[2] <= 32)


def package(
    folder: Path, network: nn.Module, *, halo: int = 0, size: Any = (16, 4), batch: Sequence[Any] = ("batch",)
) -> Path:
    """A package of a network of one image, its test image of 32 x 32 voxels of noise."""
    torch.manual_seed(0)
    more = {"halo": halo} if halo else {}
    return build_model(
        folder,
        network,
        [
            tensor_in(
                "raw",
                [
                    tensor_axis("batch"),
                    tensor_axis("channel", ["a"]),
                    tensor_axis("y", size),
                    tensor_axis("x", size),
                ],
            )
        ],
        [
            tensor_out(
                "out",
                [
                    output_axis("batch"),
                    output_axis("channel", ["b"]),
                    output_axis("y", follows("raw", "y"), **more),
                    output_axis("x", follows("raw", "x"), **more),
                ],
            )
        ],
        examples=[torch.rand(1, 1, 32, 32) + 0.5],
    )


def about(report: ValidationReport, *codes: str) -> list[tuple[str, str, str]]:
    return [(f.severity, f.code, f.field) for f in report.findings if f.code in codes]


WEIGHTS = ("weights", "test_output", "test_tensor", "size", "batch", "batch_dependent", "determinism", "halo")


def test_a_network_that_is_as_its_package_says_has_passed_everything(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Blur(), halo=4))
    assert about(report, *WEIGHTS) == []
    verdicts = report.verdicts()
    for subject in ("weights", "sizes", "batch", "determinism", "halo"):
        assert verdicts[subject] == "passed", subject
    assert report.measured["halo"]["y"] == {"declared": 4, "needed": 4, "reach": 4}


def test_a_network_with_random_numbers_is_an_error(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Random()))
    assert ("error", "determinism", "weights.torchscript") in about(report, "determinism")


def test_a_network_of_one_image_is_an_error_unless_the_rdf_says_so(tmp_path: Path) -> None:
    import yaml

    folder = package(tmp_path / "p", Single())
    assert about(validate_package(folder), "batch") == [("error", "batch", "weights.torchscript")]
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["inputs"][0]["axes"][0]["size"] = 1
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    assert about(validate_package(folder), "batch", "batch_dependent") == []


def test_an_image_whose_result_depends_on_its_batch_is_a_warning(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", OverBatch()))
    assert about(report, "batch", "batch_dependent") == [
        ("warning", "batch_dependent", "weights.torchscript")
    ]


def test_a_halo_that_is_too_small_is_a_warning_that_says_the_right_one(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Blur(), halo=2, size=(16, 2)))
    assert about(report, "halo") == [
        ("warning", "halo", "outputs[0].axes[2].halo"),
        ("warning", "halo", "outputs[0].axes[3].halo"),
    ]
    assert "declare 4" in report.of("warning")[-1].message


def test_a_halo_that_is_larger_than_a_cut_is_felt_is_a_remark(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Blur(), halo=6, size=(16, 2)))
    assert {(f.severity, f.code) for f in report.findings if f.code == "halo"} == {("info", "halo")}


@pytest.mark.parametrize(
    ("halo", "size", "advice"),
    [
        (6, (32, 4), "declare 8, and a min of at least 20"),
        (4, (18, 4), "declare a min that is a multiple of 4"),
    ],
)
def test_a_halo_off_the_grid_of_the_pooling_is_a_warning(
    tmp_path: Path, halo: int, size: tuple[int, int], advice: str
) -> None:
    folder = package(tmp_path / "p", Blur(), halo=halo, size=size)
    report = validate_package(folder, weights=("onnx",), sizes=(), core=False)
    found = [f for f in report.of("warning") if f.code == "halo_step"]
    assert [f.field for f in found] == ["outputs[0].axes[2].halo", "outputs[0].axes[3].halo"]
    assert all(advice in f.message for f in found)


def test_sizes_that_the_network_does_not_keep_are_errors(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Quarters(), size=(16, 1)))
    assert {(f.severity, f.field) for f in report.findings if f.code == "size"} == {
        ("error", "weights.torchscript")
    }


def test_off_the_grid_is_noted_and_no_finding(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Quarters()))
    assert about(report, "size") == []
    assert report.measured["off_grid"] == {"torchscript": "gives an output of another size"}
    assert any("off the declared grid" in n.message for n in report.notes)


def test_results_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", ManyNumbers(), size=(32, 8)))
    assert [f.message for f in report.findings if f.code == "size"] == [
        "at 1x1x40x40 its output has values that are NaN or infinite"
    ]


def test_a_declared_size_beyond_all_memory_is_not_tried(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "p", Blur(), size=(10**6, 10**6)))
    assert {(f.severity, f.field) for f in report.findings if f.code == "size"} == {("warning", "inputs")}


@pytest.mark.slow
def test_where_bioimageio_core_disagrees_it_is_shown(tmp_path: Path) -> None:
    report = validate_package(package(tmp_path / "sound", Blur(), halo=4), core=True)
    assert [(v.core, v.ours) for v in report.core] == [("passed", "passed")]
    # It runs the test tensors once and compares them: it does not see that a second call gives something else.
    folder = package(tmp_path / "p", ManyNumbers(), size=(32, 8))
    differing = validate_package(folder, core=True)
    assert [v.ours for v in differing.core] == ["failed"]
    assert (differing.core[0].core == "failed") != any(f.code == "core_differs" for f in differing.findings)
