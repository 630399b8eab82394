"""Which programs run a package: the rules of `consumers.yaml` on real packages, and on what is changed in them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from im2im_zoo.cli.console import print_consumers
from im2im_zoo.package import open_package
from im2im_zoo.packaging.consumers.programs import (
    ConsumerVerdict,
    consumer_rules,
    consumer_table,
    onnx_ir_version,
)

FORMATS = ("torchscript", "onnx", "pytorch_state_dict")


@pytest.fixture
def table(folder_2d: Path, tmp_path: Path) -> Callable[..., dict[tuple[str, str], ConsumerVerdict]]:
    """The table of the 2D package after a change of its RDF, by consumer (its first word) and format."""

    def make(
        change: Callable[[dict[str, Any]], object] = lambda rdf: None,
    ) -> dict[tuple[str, str], ConsumerVerdict]:
        folder = Path(shutil.copytree(folder_2d, tmp_path / "package"))
        rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
        change(rdf)
        (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")
        with open_package(folder) as package:
            return {(v.consumer.split()[0], v.weights_format): v for v in consumer_table(package)}

    return make


def replaced(*operations: dict[str, Any], where: str = "preprocessing") -> Callable[[dict[str, Any]], object]:
    side = "inputs" if where == "preprocessing" else "outputs"
    return lambda rdf: rdf[side][0].update({where: list(operations)})


def test_every_program_has_a_verdict_for_every_format(table) -> None:
    found = table()
    names = {rule["consumer"].split()[0] for rule in consumer_rules()}
    assert set(found) == {(name, kind) for name in names for kind in FORMATS}
    assert all(v.reason and v.version and re.fullmatch(r"\d{4}-\d\d-\d\d", v.date) for v in found.values())


def test_a_format_that_was_not_run_in_a_program_is_marked_although_others_were(table) -> None:
    def add_keras(rdf: dict[str, Any]) -> None:
        rdf["weights"]["keras_hdf5"] = {**rdf["weights"]["onnx"], "tensorflow_version": "2.10"}
        rdf["weights"]["keras_hdf5"].pop("opset_version")

    found = table(add_keras)
    assert found["bioimageio.core", "onnx"].checked == "run"
    keras = found["bioimageio.core", "keras_hdf5"]
    assert (keras.verdict, keras.checked) == ("runs", "read only")
    assert "in our tests" not in keras.reason


def test_programs_that_were_modelled_or_only_read_and_not_run_are_marked_as_such(
    table, capsys: pytest.CaptureFixture[str]
) -> None:
    found = table()
    checked = {program: v.checked for (program, _), v in found.items()}
    assert checked == {
        "bioimageio.core": "run",
        "ilastik": "run",
        "BioEngine": "read only",
        "deepImageJ": "modelled",
        "QuPath": "modelled",
    }
    assert found["QuPath", "onnx"].plain()["checked"] == "modelled"
    print_consumers(tuple(found.values()))
    shown = " ".join(capsys.readouterr().out.split())
    assert "BioEngine, read only" in shown
    assert "QuPath, modelled" in shown
    assert "bioimageio.core, read only" not in shown


def test_an_exported_package_runs_in_what_the_community_has(table) -> None:
    found = table()
    running = [("bioimageio.core", kind) for kind in FORMATS]
    running += [("ilastik", "torchscript"), ("BioEngine", "onnx"), ("BioEngine", "torchscript")]
    assert {found[key].verdict for key in running} == {"runs"}


def test_a_halo_around_a_whole_image_is_told(table) -> None:
    assert "get the halo around them" in table()["bioimageio.core", "onnx"].reason


def test_a_network_of_one_size_fails_on_a_whole_image_with_a_halo_around_it(table) -> None:
    def of_one_size(rdf: dict[str, Any]) -> None:
        for axis in rdf["inputs"][0]["axes"][2:]:
            axis["size"] = axis["size"]["min"]

    verdict = table(of_one_size)["bioimageio.core", "onnx"]
    assert (verdict.verdict, "along y, x" in verdict.reason) == ("differs", True)
    assert "--blockwise" in verdict.change


def test_a_state_dict_of_monai_cannot_where_monai_is_not_installed(table) -> None:
    verdict = table()["ilastik", "pytorch_state_dict"]
    assert (verdict.verdict, "monai" in verdict.reason) == ("cannot", True)
    assert "torchscript" in verdict.change


def test_covers_with_hashes_cannot_in_older_readers_and_it_says_what_to_do(table) -> None:
    found = table(
        lambda rdf: rdf.update(
            covers=[{"source": "cover.png"}], documentation={"source": "README.md"}, format_version="0.5.12"
        )
    )
    assert found["bioimageio.core", "onnx"].verdict == "runs"
    for program in ("ilastik", "BioEngine", "QuPath"):
        assert found[program, "torchscript"].verdict == "cannot"
        assert "covers" in found[program, "torchscript"].change


def test_newer_onnx_is_left_to_newer_runtimes(table) -> None:
    found = table(lambda rdf: rdf["weights"]["onnx"].update(opset_version=21))
    assert found["deepImageJ", "onnx"].verdict == "cannot"
    assert "--onnx-opset 17" in found["deepImageJ", "onnx"].change
    assert found["BioEngine", "onnx"].verdict == "runs"


def test_the_ir_version_is_read_from_the_file(folder_2d: Path) -> None:
    assert onnx_ir_version(folder_2d / "weights.onnx") == 8
    assert onnx_ir_version(folder_2d / "cover.png") is None


def test_a_stack_is_not_for_qupath(packaged) -> None:
    with open_package(packaged(3, "regression").folder) as package:
        found = {(v.consumer.split()[0], v.weights_format): v for v in consumer_table(package)}
    assert found["QuPath", "torchscript"].verdict == "cannot"
    assert found["ilastik", "torchscript"].verdict == "runs"


def test_sizes_off_the_multiples_of_the_step_are_not_for_deepimagej(table) -> None:
    size = {"min": 11, "step": 2}
    found = table(lambda rdf: rdf["inputs"][0]["axes"][2].update(size=size))
    assert found["deepImageJ", "onnx"].verdict == "cannot"
    assert "multiples of 2 along y" in found["deepImageJ", "onnx"].reason
    assert found["ilastik", "torchscript"].verdict == "runs"
