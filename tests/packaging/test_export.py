"""What `export_package` writes: valid, the same in every format and consumer, and all or nothing."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
import torch
import yaml
from commands import in_a_process
from packaging_samples import Pair, network_of, tiny_recipe
from PIL import Image
from tensors_for_tests import differing
from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.package import open_package
from im2im_zoo.packaging import Exported, export_package, validate_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime.rescale import model_pixel_size_um

CASES = [(2, "semantic"), (2, "regression"), (3, "semantic"), (3, "regression")]
Packaged = Callable[[int, str], Exported]


@pytest.mark.parametrize(("ndim", "task"), CASES)
def test_package_is_sound_and_without_warnings(packaged: Packaged, ndim: int, task: str) -> None:
    report = validate_package(packaged(ndim, task).folder, allow_code=True)
    assert report.findings == ()
    assert set(report.measured["test_output"]) == {"onnx", "torchscript", "pytorch_state_dict"}


def print_verdicts_of_core(folders: list[str]) -> None:
    from im2im_zoo.packaging.validation.checks.core import core_verdict

    for folder in folders:
        print("REPORT", core_verdict(folder).to_json().replace("\n", " "))  # noqa: T201 what the test reads


def test_bioimageio_core_reproduces_every_weight_format_without_warnings(packaged: Packaged) -> None:
    # In a process of its own: bioimageio.core 0.11 leaves files open until Python finds them, in any later test.
    cases = [(2, "semantic"), (3, "regression")]
    done = in_a_process(print_verdicts_of_core, [str(packaged(*case).folder) for case in cases])
    assert done.returncode == 0, done.stderr
    reports = [
        json.loads(t.removeprefix("REPORT")) for t in done.stdout.splitlines() if t.startswith("REPORT")
    ]
    assert len(reports) == len(cases)
    for report in reports:
        assert report["sound"] is True
        assert {f["severity"] for f in report["findings"]} <= {"info"}
        fields = {f["field"] for f in report["findings"]}
        assert fields >= {"weights.onnx", "weights.torchscript", "weights.pytorch_state_dict"}


def test_sizes_halo_and_scale_are_declared(packaged: Packaged) -> None:
    rdf = yaml.safe_load((packaged(3, "regression").folder / "rdf.yaml").read_text(encoding="utf-8"))
    z = rdf["inputs"][0]["axes"][2]
    assert rdf["config"]["im2im_zoo"]["pixel_size_um"] == {"z": 0.5, "y": 0.2, "x": 0.2}
    assert "scale" not in z  # deepImageJ takes it for a ratio of sizes
    with open_package(packaged(3, "regression").folder) as package:
        assert model_pixel_size_um(package) == {"z": 0.5, "y": 0.2, "x": 0.2}
    assert z["size"]["step"] == 2
    reach = rdf["config"]["im2im_zoo"]["receptive_field"]
    for axis, out in zip(rdf["inputs"][0]["axes"][2:], rdf["outputs"][0]["axes"][2:], strict=True):
        assert axis["size"]["min"] % axis["size"]["step"] == 0
        step = axis["size"]["step"]
        assert out["halo"] % step == (axis["size"]["min"] - 2 * out["halo"]) % step == 0
        assert 1 <= out["halo"] < reach[axis["id"]] + step
        assert axis["size"]["min"] > 2 * out["halo"]


def test_casts_are_written_out_so_that_a_float_image_is_not_cut_to_integers(packaged: Packaged) -> None:
    package = packaged(2, "semantic")
    rdf = yaml.safe_load((package.folder / "rdf.yaml").read_text(encoding="utf-8"))
    steps = rdf["inputs"][0]["preprocessing"]
    assert rdf["inputs"][0]["data"]["type"] == "uint16"
    assert [s["id"] for s in steps] == ["ensure_dtype", "scale_range", "ensure_dtype"]
    assert {s["kwargs"]["dtype"] for s in steps if s["id"] == "ensure_dtype"} == {"float32"}
    read = open_package(package.folder).inputs[0].preprocessing
    assert [s.id for s in read] == [s["id"] for s in steps]


def test_onnx_is_of_a_version_that_old_runtimes_read(packaged: Packaged) -> None:
    model = onnx.load(str(packaged(2, "semantic").folder / "weights.onnx"))
    assert model.ir_version <= 8
    assert [o.version for o in model.opset_import if not o.domain] == [17]


def test_test_output_is_what_the_network_makes_of_the_test_input(packaged: Packaged) -> None:
    folder, recipe = packaged(2, "semantic").folder, tiny_recipe(2, "semantic")
    image = np.load(folder / "test_input.npy").astype(np.float64)
    low, high = np.percentile(image, (1, 99))
    scaled = torch.from_numpy(((image - low) / (high - low + 1e-6)).astype(np.float32))
    with torch.inference_mode():
        expected = torch.sigmoid(network_of(recipe)(scaled)).numpy()
    np.testing.assert_allclose(np.load(folder / "test_output.npy"), expected, atol=1e-5)


def test_test_input_is_a_part_of_the_sample_of_different_sides(packaged: Packaged, pair_2d: Pair) -> None:
    tensor = np.load(packaged(2, "semantic").folder / "test_input.npy")
    height, width = tensor.shape[2:]
    assert height != width
    image = pair_2d.input.to_numpy()[0]
    windows = np.lib.stride_tricks.sliding_window_view(image, (height, width))
    assert (windows == tensor[0, 0]).all(axis=(2, 3)).any()


def test_sample_tensors_are_images_with_pixel_sizes(packaged: Packaged) -> None:
    folder = packaged(3, "regression").folder
    with tifffile.TiffFile(folder / "sample_input.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert 'PhysicalSizeZ="0.5"' in (file.ome_metadata or "")
    np.testing.assert_array_equal(
        tifffile.imread(folder / "sample_input.tif"), np.load(folder / "test_input.npy")[0, 0]
    )


@pytest.mark.parametrize(("ndim", "task"), CASES)
def test_cover_is_two_to_one_small_and_shows_something_on_both_sides(
    packaged: Packaged, ndim: int, task: str
) -> None:
    path = packaged(ndim, task).folder / "cover.png"
    assert path.stat().st_size < 500_000
    with Image.open(path) as image:
        assert image.width == 2 * image.height
        pixels = np.asarray(image.convert("L")).astype(float)
    left, right = np.split(pixels, 2, axis=1)
    assert left.std() > 10
    assert right.std() > 3


def test_readme_has_the_figures_and_baselines_below_a_validation_heading(packaged: Packaged) -> None:
    text = (packaged(2, "regression").folder / "README.md").read_text(encoding="utf-8")
    validation = text.split("## Validation")[1]
    assert "| measure | this model | linear fit |" in validation
    assert "| pearson | 0.9 | 0.4 |" in validation
    assert "Trained on nothing: for tests." in text


@pytest.mark.parametrize(("ndim", "task"), CASES)
def test_the_validation_section_has_a_picture_of_image_result_and_target(
    packaged: Packaged, ndim: int, task: str
) -> None:
    folder = packaged(ndim, task).folder
    assert "](validation.png)" in (folder / "README.md").read_text(encoding="utf-8").split("## Validation")[1]
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    assert "validation.png" in [a["source"] for a in rdf["attachments"]]
    with Image.open(folder / "validation.png") as image:
        assert image.width == 3 * image.height
        pixels = np.asarray(image.convert("L")).astype(float)
    assert all(part.std() > 3 for part in np.split(pixels, 3, axis=1))


def test_a_package_without_figures_has_no_picture_of_a_target(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    exported = export_package(
        network_of(recipe), recipe, [pair_2d], tmp_path / "p", figures={}, weights=["torchscript"]
    )
    assert not (exported.folder / "validation.png").exists()


def test_a_pixel_size_at_which_sizes_would_not_stay_whole_can_be_exported(
    pair_2d: Pair, tmp_path: Path
) -> None:
    recipe = tiny_recipe(2, "regression")
    part = Pair("part", pair_2d.input[:, :128, :128], pair_2d.target[:, :128, :128])
    assert 126 * 0.2 / 0.2 != 126
    exported = export_package(
        network_of(recipe), recipe, [part], tmp_path / "p", figures={}, weights=["torchscript"]
    )
    assert np.load(exported.folder / "test_input.npy").shape[-1] == 126
    assert "0.2 µm" in (exported.folder / "README.md").read_text(encoding="utf-8")


def test_no_folder_of_this_machine_is_in_the_package(packaged: Packaged) -> None:
    folder = packaged(2, "semantic").folder
    for name in ("rdf.yaml", "recipe.yaml", "README.md", "environment.yaml"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "/home/somebody" not in text
        assert str(folder.parent) not in text


def test_zip_holds_the_folder_sorted_and_of_one_time(packaged: Packaged) -> None:
    exported = packaged(2, "semantic")
    assert exported.zip_path is not None
    with zipfile.ZipFile(exported.zip_path) as archive:
        assert archive.namelist() == sorted(p.name for p in exported.folder.iterdir())
        assert {e.date_time for e in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("rdf.yaml") == (exported.folder / "rdf.yaml").read_bytes()


def test_missing_metadata_is_said_and_does_not_stop_the_export(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        2, "semantic", authors=[], cite=[], description="", training_data=None, documentation=""
    )
    exported = export_package(
        network_of(recipe), recipe, [pair_2d], tmp_path / "p", figures={}, weights=["torchscript"]
    )
    assert validate_package(exported.folder).sound
    fields = {line.split(":")[0] for line in exported.warnings}
    assert fields >= {f"package.{f}" for f in ("authors", "cite", "description", "training_data")}
    assert {f.code for f in validate_package(exported.folder).of("warning")} == {"authors", "tags"}


def test_a_network_that_is_not_the_recipes_has_no_state_dict_and_says_why(
    pair_2d: Pair, tmp_path: Path
) -> None:
    recipe = tiny_recipe(2, "regression")
    wrapped = nn.Sequential(network_of(recipe), nn.Softplus())
    exported = export_package(wrapped, recipe, [pair_2d], tmp_path / "p", figures={})
    assert open_package(exported.folder).weights == ("onnx", "torchscript")
    reason = next(line for line in exported.warnings if "pytorch_state_dict" in line)
    assert "monai.networks.nets.UNet built again does not accept these weights" in reason
    assert "There are no `pytorch_state_dict` weights" in (exported.folder / "README.md").read_text(
        encoding="utf-8"
    )


def test_same_weights_in_another_function_have_no_state_dict(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    network = network_of(recipe)
    network.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(PackageError, match=r"its output differs from the network's by 0\.5"):
        export_package(network, recipe, [pair_2d], tmp_path / "p", figures={}, weights=["pytorch_state_dict"])


def test_an_existing_package_is_kept_unless_overwritten(
    packaged: Packaged, pair_2d: Pair, tmp_path: Path
) -> None:
    recipe, output = tiny_recipe(2, "regression"), tmp_path / "p"
    output.mkdir()
    (output / "rdf.yaml").write_text("mine")
    arguments = (network_of(recipe), recipe, [pair_2d], output)
    with pytest.raises(PackageError, match="already exists: choose another name, or overwrite=True"):
        export_package(*arguments, figures={})
    assert (output / "rdf.yaml").read_text() == "mine"
    export_package(*arguments, figures={}, weights=["torchscript"], overwrite=True)
    assert validate_package(output).sound
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_folder_that_is_no_package_is_never_replaced(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(PackageError, match="is not a package"):
        export_package(network_of(recipe), recipe, [pair_2d], tmp_path, figures={}, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("existing", [False, True])
def test_an_export_that_fails_in_the_middle_leaves_what_was_there(
    pair_2d: Pair, tmp_path: Path, existing: bool
) -> None:
    recipe, output = tiny_recipe(2, "regression"), tmp_path / "p"
    if existing:
        output.mkdir()
        (output / "rdf.yaml").write_text("old")
    broken = recipe.model_copy(
        update={"package": recipe.package.model_copy(update={"license": "no licence"})}
    )
    with pytest.raises(PackageError, match="license"):
        export_package(
            network_of(recipe), broken, [pair_2d], output, figures={}, weights=["torchscript"],
            zip_path=tmp_path / "p.zip", overwrite=True,
        )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == (["p"] if existing else [])
    assert not existing or (output / "rdf.yaml").read_text() == "old"


def test_wrong_channel_names_are_refused_with_their_key(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    wrong = recipe.model_copy(update={"output": recipe.output.model_copy(update={"channels": ("a", "b")})})
    with pytest.raises(PackageError, match=r"names 2 channels for the output \(a, b\), but it has 1"):
        export_package(
            network_of(recipe), wrong, [pair_2d], tmp_path / "p", figures={}, weights=["torchscript"]
        )


def test_unknown_weight_format_is_refused_with_the_known_ones(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, "regression")
    with pytest.raises(PackageError, match="'keras': the formats are onnx, torchscript, pytorch_state_dict"):
        export_package(network_of(recipe), recipe, [pair_2d], tmp_path / "p", figures={}, weights=["keras"])


def test_export_shows_no_warning_of_torch_and_keeps_the_network_as_it_was(
    pair_2d: Pair, tmp_path: Path
) -> None:
    recipe = tiny_recipe(2, "regression")
    network = network_of(recipe).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The engine reads TorchScript with what torch calls deprecated; pytest's settings allow it as well.
        warnings.filterwarnings("ignore", message="`torch.jit.load", category=DeprecationWarning)
        export_package(network, recipe, [pair_2d], tmp_path / "p", figures={})
    assert network.training
    assert differing(network.state_dict(), before) == []


def test_numbers_that_training_measures_have_to_be_there(tmp_path: Path) -> None:
    sample: Any = object()
    with pytest.raises(
        PackageError, match=r"input\.preprocessing has a standardisation without mean and std"
    ):
        export_package(
            nn.Identity(), load_recipe("denoising_n2v_2d"), [sample], tmp_path / "package", figures={}
        )
    assert not list(tmp_path.iterdir())
