"""The table of programs agrees with models of the programs' rules, on a package and on what is changed in it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from program_agreement import JDLL, PROGRAMS, QUPATH, check_agreement

from im2im_zoo.package import open_package
from im2im_zoo.packaging.consumers.programs import consumer_table

Change = Callable[[dict[str, Any]], object]
SPACE = ["y", "x"]


CAST = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}


def before(name: str, **kwargs: Any) -> Change:
    """One operation in front of the network, in float32."""
    return lambda rdf: rdf["inputs"][0].update(preprocessing=[CAST, _entry(name, kwargs), CAST])


def after(name: str, **kwargs: Any) -> Change:
    """One operation behind the network."""
    return lambda rdf: rdf["outputs"][0].update(postprocessing=[_entry(name, kwargs)])


def _entry(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, **({"kwargs": kwargs} if kwargs else {})}


def without_pixel_size(rdf: dict[str, Any]) -> None:
    for tensor in (rdf["inputs"][0], rdf["outputs"][0]):
        for axis in tensor["axes"]:
            axis.pop("scale", None)
            axis.pop("unit", None)


def without_halo(rdf: dict[str, Any]) -> None:
    for axis in rdf["outputs"][0]["axes"]:
        axis.pop("halo", None)


def global_receptive_field(rdf: dict[str, Any]) -> None:
    rdf["config"]["im2im_zoo"]["receptive_field"] = "global"


# The verdicts on deepImageJ and QuPath are for the package without its pixel size, which deepImageJ cannot take.
CHANGES: dict[str, tuple[Change, str, str]] = {
    "as it is": (lambda rdf: None, "runs", "differs"),
    "fixed numbers": (before("fixed_zero_mean_unit_variance", mean=500.0, std=200.0), "runs", "differs"),
    "tiny std": (before("fixed_zero_mean_unit_variance", mean=500.0, std=1e-3), "differs", "differs"),
    "a mean each": (
        before("fixed_zero_mean_unit_variance", mean=[5.0], std=[2.0], axis="channel"), "cannot", "differs",
    ),
    "one gain": (before("scale_linear", gain=1e-3, offset=-0.5), "runs", "cannot"),
    "listed gain": (before("scale_linear", gain=[1e-3], offset=[-0.5], axis="channel"), "runs", "differs"),
    "no offset": (before("scale_linear", gain=1e-3), "runs", "cannot"),
    "statistics of channel and space": (
        before("zero_mean_unit_variance", axes=["channel", *SPACE], eps=1e-6), "runs", "differs",
    ),
    "statistics of rows": (before("zero_mean_unit_variance", axes=["x"], eps=1e-6), "differs", "differs"),
    "statistics without axes": (before("zero_mean_unit_variance"), "runs", "cannot"),
    "percentiles without axes": (before("scale_range", max_percentile=99.0), "runs", "cannot"),
    "softmax": (after("softmax", axis="channel"), "cannot", "differs"),
    "reference tensor": (after("scale_mean_variance", reference_tensor="image"), "cannot", "differs"),
    "one limit": (before("clip", min=0.0), "cannot", "differs"),
    "a null": (before("clip", min=0.0, max=None), "cannot", "differs"),
    "limits": (before("clip", min=0.0, max=900.0), "runs", "differs"),
    "percentiles as limits": (before("clip", min_percentile=1.0, max_percentile=99.0), "cannot", "differs"),
    "threshold": (after("binarize", threshold=0.5), "runs", "differs"),
    "listed threshold": (after("binarize", threshold=[0.5], axis="channel"), "cannot", "cannot"),
    "no halo": (without_halo, "runs", "differs"),
    "neither halo nor statistics": (
        lambda rdf: (without_halo(rdf), before("clip", min=0.0, max=900.0)(rdf)), "runs", "runs",
    ),
    "cast": (before("ensure_dtype", dtype="uint8"), "differs", "differs"),
    "global": (global_receptive_field, "differs", "differs"),
    "no name": (lambda rdf: rdf["config"]["bioimageio"].pop("nickname"), "cannot", "differs"),
    "id": (
        lambda rdf: (rdf["config"]["bioimageio"].pop("nickname"), rdf.update(id="tiny-model")), "runs", "differs",
    ),
    "0.5.0": (lambda rdf: rdf.update(format_version="0.5.0"), "runs", "cannot"),
    "hashes": (
        lambda rdf: rdf.update(
            documentation={"source": "README.md"}, covers=[{"source": "cover.png"}], format_version="0.5.12"
        ),
        "cannot", "cannot",
    ),
    "output of integers": (
        lambda rdf: (after("ensure_dtype", dtype="uint8")(rdf), rdf["outputs"][0]["data"].update(type="uint8")),
        "cannot", "differs",
    ),
}  # fmt: skip


def changed(folder: Path, target: Path, *changes: Change) -> Path:
    made = Path(shutil.copytree(folder, target))
    rdf = yaml.safe_load((made / "rdf.yaml").read_text(encoding="utf-8"))
    for change in changes:
        change(rdf)
    (made / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")
    return made


@pytest.mark.parametrize("name", CHANGES)
def test_verdicts_on_deepimagej_and_qupath_are_what_their_rules_give(
    name: str, folder_2d: Path, tmp_path: Path
) -> None:
    change, *verdicts = CHANGES[name]
    folder = changed(folder_2d, tmp_path / "package", without_pixel_size, change)
    with open_package(folder) as package:
        table = {v.consumer: v.verdict for v in consumer_table(package) if v.weights_format == "torchscript"}
    assert [table[JDLL], table[QUPATH]] == verdicts
    for program in PROGRAMS:
        check_agreement(program, folder)


def test_deepimagej_takes_a_pixel_size_for_a_ratio_of_sizes(folder_2d: Path, tmp_path: Path) -> None:
    def with_pixel_size(rdf: dict[str, Any]) -> None:
        for tensor in (rdf["inputs"][0], rdf["outputs"][0]):
            for axis in tensor["axes"][2:]:
                axis.update(unit="micrometer", scale=0.2)

    folder = changed(folder_2d, tmp_path / "package", with_pixel_size)
    check_agreement(JDLL, folder)
    with open_package(folder) as package:
        found = {(v.consumer, v.weights_format): v for v in consumer_table(package)}
    assert found[JDLL, "onnx"].verdict == "cannot"
    assert "0.2 along y" in found[JDLL, "onnx"].reason


@pytest.mark.parametrize("program", PROGRAMS)
def test_verdicts_on_a_packaged_model_are_what_the_rules_give(program: str, repository: Path) -> None:
    for rdf in (repository / "packaged_models").rglob("rdf.yaml"):
        check_agreement(program, rdf.parent)


def test_a_stack_is_cut_by_deepimagej_and_nothing_for_qupath(packaged, tmp_path: Path) -> None:
    folder = changed(packaged(3, "regression").folder, tmp_path / "package", without_pixel_size)
    for program in PROGRAMS:
        check_agreement(program, folder)
