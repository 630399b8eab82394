"""Packages of recipes whose preprocessing begins with custom operations: sound for everybody, and complete."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from custom_samples import CENTRE, MACENKO, TO_ONE, recipe_behind, tissue
from packaging_samples import Pair, network_of, whole_output

from im2im_zoo.core.errors import Im2ImError, ProcessingError
from im2im_zoo.package import open_package
from im2im_zoo.package.reference import Reference
from im2im_zoo.packaging import Exported, export_package, validate_package
from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import make_recipe
from im2im_zoo.runtime import open_network, predict_array

FIXED = {"timestamp": "2026-01-02T03:04:05+00:00"}


def export(recipe: Recipe, sample: Pair, output: Path, **options: object) -> Exported:
    options = {"weights": ["onnx", "torchscript"], "provenance": FIXED, **options}
    return export_package(network_of(recipe), recipe, [sample], output, figures={"pearson": 0.9}, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def centre(pair_3d: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(recipe_behind(CENTRE), pair_3d, tmp_path_factory.mktemp("centre") / "p").folder


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = recipe_behind(MACENKO, TO_ONE, ndim=2)
    return export(recipe, tissue(100, 100), tmp_path_factory.mktemp("stained") / "p").folder


def rdf_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))


def test_the_package_is_sound_without_consent_and_holds_what_it_needs(centre: Path) -> None:
    report = validate_package(centre)
    assert report.findings == ()
    rdf = rdf_of(centre)
    [entry] = rdf["config"]["im2im_zoo"]["preprocessing"]
    assert (entry["tensor"], entry["image_type"]) == ("image", "uint16")
    assert [o["id"] for o in entry["operations"]] == ["custom", "ensure_dtype"]
    assert entry["operations"][0]["source"] == "centre_normalisation.py"
    assert (centre / "centre_normalisation.py").is_file()
    assert "centre_normalisation.py" in [a["source"] for a in rdf["attachments"]]


def test_the_rdf_begins_with_the_processed_image(centre: Path, stained: Path, pair_3d: Pair) -> None:
    for folder, ids in (
        (centre, ["ensure_dtype"]),
        (stained, ["ensure_dtype"]),
    ):
        tensor = rdf_of(folder)["inputs"][0]
        assert tensor["data"]["type"] == "float32"
        assert [o["id"] for o in tensor["preprocessing"]][: len(ids)] == ids
    made = np.load(centre / "test_input.npy")
    whole = centre_normalisation(chunk_size=8)(pair_3d.input.to_numpy())
    windows = np.lib.stride_tricks.sliding_window_view(whole[0], made.shape[2:])
    assert (windows == made[0, 0]).all(axis=(3, 4, 5)).any()


def test_test_tensors_are_past_the_custom_operations(centre: Path) -> None:
    package = open_package(centre)
    reference = Reference.of(package)
    np.testing.assert_array_equal(reference.inputs[0], np.load(centre / "test_input.npy"))


@pytest.mark.parametrize("which", ["centre", "stained"])
def test_the_runtime_gives_what_the_trained_network_gives_for_a_raw_image(
    which: str, request: pytest.FixtureRequest, pair_3d: Pair
) -> None:
    folder: Path = request.getfixturevalue(which)
    recipe = recipe_behind(CENTRE) if which == "centre" else recipe_behind(MACENKO, TO_ONE, ndim=2)
    sample = pair_3d if which == "centre" else tissue(100, 100)
    expected = whole_output(network_of(recipe), recipe, sample)
    package = open_package(folder)
    engine = open_network(package, weights="onnx", backend="onnxruntime").engine
    whole = predict_array(package, sample.input, engine=engine, whole=True)
    np.testing.assert_allclose(whole, expected, atol=1e-4)
    ours = rdf_of(folder)["config"]["im2im_zoo"]
    tile = {a: 2 * ours["receptive_field"][a] + 24 for a in recipe.space}
    tiled = predict_array(package, sample.input, engine=engine, tile=tile, halo=ours["receptive_field"])
    np.testing.assert_allclose(tiled, expected, atol=1e-4)


SCRIPT = """
import json, pathlib, sys, tempfile
import numpy as np
from bioimageio.spec import save_bioimageio_package_as_folder
from im2im_zoo.packaging.validation.checks.core import core_verdict
import os
for folder, blocks in json.loads(sys.argv[1]):
    verdict = json.loads(core_verdict(folder).to_json())
    os.chdir(folder)
    sys.path.insert(0, folder)
    scope = {}
    for block in blocks:
        exec(block, scope)
    copied = save_bioimageio_package_as_folder("rdf.yaml", output_path=tempfile.mkdtemp())
    print("REPORT", json.dumps({
        "sound": verdict["sound"],
        "severities": sorted({f["severity"] for f in verdict["findings"]}),
        "result": [float(x) for x in (scope["result"].data.values.mean(), scope["result"].data.values.std())],
        "shape": list(scope["result"].data.shape),
        "files": sorted(p.name for p in pathlib.Path(copied).iterdir()),
    }))
"""


@pytest.mark.slow
def test_bioimageio_core_reproduces_the_package_and_the_lines_of_the_readme_run(
    centre: Path, stained: Path, pair_3d: Pair, tmp_path: Path
) -> None:
    # In a process of its own: bioimageio.core 0.11 leaves files open until Python finds them, in any later test.
    jobs, expected = [], []
    for folder, sample in ((centre, pair_3d), (stained, tissue(100, 100))):
        copy = Path(shutil.copytree(folder, tmp_path / f"{sample.name}"))
        shape = np.load(folder / "test_input.npy").shape
        part = sample.input[tuple(slice(n) for n in shape[1:])]
        np.save(copy / "image.npy", part.to_numpy()[None])
        readme = (folder / "README.md").read_text(encoding="utf-8")
        run, before = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
        jobs.append((str(copy), [before, run]))
        expected.append(predict_array(open_package(folder), part, weights="onnx", whole=True))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(t[6:]) for t in done.stdout.splitlines() if t.startswith("REPORT")]
    for report, ours, name in zip(reports, expected, ["centre_normalisation.py", "macenko.py"], strict=True):
        assert report["sound"] is True
        assert report["severities"] == ["info"]
        assert report["shape"] == [1, *ours.shape]
        # bioimageio.core 0.11 pads by the halo before it runs, so borders differ.
        np.testing.assert_allclose(report["result"], [ours.mean(), ours.std()], rtol=0.2, atol=0.02)
        assert name in report["files"]


def test_a_changed_file_is_found_and_never_run(centre: Path, pair_3d: Pair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(centre, tmp_path / "copy"))
    with (copy / "centre_normalisation.py").open("a") as file:
        file.write("\nraise RuntimeError('it ran')\n")
    assert [f.field for f in validate_package(copy).of("error") if f.code == "hash"] == ["attachments[2]"]
    package = open_package(copy)
    with pytest.raises(ProcessingError, match="allow_code=True"):
        predict_array(package, pair_3d.input, weights="onnx")
    with pytest.raises(ProcessingError, match="has not been run"):
        predict_array(package, pair_3d.input, weights="onnx", allow_code=True)


def test_a_missing_file_is_an_error(centre: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(centre, tmp_path / "copy"))
    (copy / "centre_normalisation.py").unlink()
    assert "missing_file" in {f.code for f in validate_package(copy).of("error")}


def test_code_of_others_is_exported_and_run_with_consent_only(pair_3d: Pair, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def half():\n    return lambda array: array / 2\n")
    recipe = recipe_behind({"id": "custom", "callable": "half", "source": "mine.py", "kwargs": {}})
    with pytest.raises(ProcessingError, match="allow_code=True"):
        export(recipe, pair_3d, tmp_path / "p", root=tmp_path)
    folder = export(recipe, pair_3d, tmp_path / "p", root=tmp_path, allow_code=True, weights=["onnx"]).folder
    assert validate_package(folder).sound
    package = open_package(folder)
    with pytest.raises(ProcessingError, match="allow_code=True"):
        predict_array(package, pair_3d.input)
    result = predict_array(package, pair_3d.input, whole=True, allow_code=True)
    expected = whole_output(network_of(recipe), recipe, pair_3d, root=tmp_path, allow_code=True)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_an_operation_that_changes_the_channels_is_refused(pair_3d: Pair, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def twice():\n    return lambda a: a.repeat(2, axis=a.ndim - 4)\n")
    recipe = recipe_behind({"id": "custom", "callable": "twice", "source": "mine.py", "kwargs": {}})
    with pytest.raises(Im2ImError, match="must keep the number of channels"):
        export(recipe, pair_3d, tmp_path / "p", root=tmp_path, allow_code=True)
    assert not (tmp_path / "p").exists()


def test_a_reference_is_the_processed_image_in_the_export_and_in_the_runtime(
    pair_3d: Pair, tmp_path: Path
) -> None:
    recipe = recipe_behind(CENTRE)
    axes = ["channel", "z", "y", "x"]
    match = {"id": "scale_mean_variance", "kwargs": {"axes": axes, "reference_tensor": "image"}}
    content = recipe.model_dump(mode="json", exclude_none=True)
    content["output"]["postprocessing"] = [match]
    recipe = make_recipe(content, "a test")
    folder = export(recipe, pair_3d, tmp_path / "p", weights=["onnx"]).folder
    result = predict_array(open_package(folder), pair_3d.input, whole=True)
    reference = centre_normalisation(chunk_size=8)(pair_3d.input.to_numpy())
    np.testing.assert_allclose(
        [float(result.mean()), float(result.std())], [reference.mean(), reference.std()], rtol=1e-3, atol=1e-4
    )
    made = whole_output(network_of(recipe), recipe, pair_3d)
    np.testing.assert_allclose(result, made.transpose(*result.dims), atol=1e-3)
