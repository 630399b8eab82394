"""Packages of recipes with grouping: the RDF's output is the maps, and the file that groups them goes with it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging_samples import Pair, network_of, tiny_recipe, whole_output
from PIL import Image

from im2im_zoo.core.errors import ComponentError, PackageError, RecipeError
from im2im_zoo.instances.methods import components
from im2im_zoo.package import open_package
from im2im_zoo.packaging import Exported, export_package, validate_package
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, make_recipe
from im2im_zoo.runtime import predict_array, predict_arrays

KWARGS = {"threshold": 0.0, "min_size": 2}
OTHERS = "def group(maps, channel=0):\n    return (maps[channel] > 0).astype('uint8')\n"


def grouping_recipe(ndim: int = 2, **grouping: object) -> Recipe:
    content = tiny_recipe(ndim, "instance").model_dump(mode="json", exclude_none=True)
    component = {"callable": "im2im_zoo.instances.methods.components.group", "kwargs": KWARGS, **grouping}
    content["output"]["grouping"] = component
    return make_recipe(content, "with grouping")


def export(recipe: Recipe, sample: Pair, output: Path, **options: object) -> Exported:
    options = {"weights": ["torchscript"], **options}
    return export_package(network_of(recipe), recipe, [sample], output, figures={"ap@0.50": 0.4}, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def grouped(pair_2d: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(grouping_recipe(), pair_2d, tmp_path_factory.mktemp("grouped") / "p").folder


@pytest.fixture
def copy(grouped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grouped, tmp_path / "copy"))


def rdf_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))


def edit(folder: Path, **grouping: object) -> None:
    rdf = rdf_of(folder)
    rdf["config"]["im2im_zoo"]["grouping"] |= grouping
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")


def errors(folder: Path, **options: bool) -> list[tuple[str, str]]:
    return [(f.code, f.message) for f in validate_package(folder, **options).of("error")]  # type: ignore[arg-type]


def test_the_package_is_sound_without_consent_and_holds_what_it_needs(grouped: Path) -> None:
    report = validate_package(grouped)
    assert report.findings == ()
    assert report.measured["grouping"]["objects_in_test_output"] > 0
    assert (grouped / "components.py").read_bytes() == Path(str(components.__file__)).read_bytes()
    rdf = rdf_of(grouped)
    entry = rdf["config"]["im2im_zoo"]["grouping"]
    assert entry["source"] == "components.py"
    assert (entry["callable"], entry["output"], entry["kwargs"]) == ("group", "result", KWARGS)
    [attached] = [a for a in rdf["attachments"] if a["source"] == "components.py"]
    assert attached["sha256"] == entry["sha256"]


def test_the_output_of_the_rdf_is_the_maps(grouped: Path, pair_2d: Pair) -> None:
    recipe = grouping_recipe()
    maps = whole_output(network_of(recipe), recipe, pair_2d)
    results = predict_arrays(open_package(grouped), pair_2d.input, whole=True, backend="torch")
    np.testing.assert_allclose(results["result"], maps, atol=1e-5)
    assert np.load(grouped / "test_output.npy").dtype == np.float32
    np.testing.assert_array_equal(
        results["instances"], components.group(results["result"].to_numpy(), **KWARGS)
    )


def test_the_cover_shows_objects_in_colours(grouped: Path) -> None:
    right = np.asarray(Image.open(grouped / "cover.png").convert("RGB"))[:, 402:]
    colours = {tuple(c) for c in right.reshape(-1, 3)[::7].tolist()}
    assert (0, 0, 0) in colours
    assert sum(max(c) - min(c) > 40 for c in colours) > 5


SCRIPT = """
import json, sys
blocks = json.loads(sys.argv[1])
sys.path.insert(0, ".")
scope = {}
for block in blocks:
    exec(block, scope)
assert not [m for m in sys.modules if m.startswith("im2im_zoo")]
print(json.dumps([list(scope["labels"].shape), int(scope["labels"].max()), str(scope["labels"].dtype)]))
"""


@pytest.mark.slow
def test_the_lines_of_the_readme_give_labels_without_this_program(
    grouped: Path, pair_2d: Pair, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(grouped, tmp_path / "copy"))
    part = pair_2d.input[:, :64, :60]
    np.save(folder / "image.npy", part.to_numpy()[None])
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    blocks[0] = blocks[0].replace("image.tif", "image.npy")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    shape, objects, dtype = json.loads(done.stdout.splitlines()[-1])
    assert (shape, dtype) == ([64, 60], "int32")
    assert objects > 0


# What validation finds


def test_a_changed_file_is_found(copy: Path) -> None:
    with (copy / "components.py").open("a") as file:
        file.write("\nraise RuntimeError('it ran')\n")
    found = validate_package(copy, allow_code=True)
    (changed,) = [f for f in found.of("error") if f.code == "hash"]
    assert "components.py" in changed.message
    assert "it ran" not in found.to_json()


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "components.py").unlink()
    codes = [code for code, _ in errors(copy)]
    assert "missing_file" in codes
    assert "grouping" in codes


def test_kwargs_that_the_function_does_not_take_are_found(copy: Path) -> None:
    edit(copy, kwargs={"treshold": 0.5})
    [(code, message)] = errors(copy)
    assert code == "grouping"
    assert "treshold" in message


def test_a_sample_that_cannot_be_grouped_is_found(copy: Path) -> None:
    edit(copy, kwargs={"channel": 4})
    [(code, message)] = errors(copy)
    assert code == "grouping"
    assert "IndexError" in message


def test_a_sample_without_objects_is_told_of(copy: Path) -> None:
    edit(copy, kwargs={"threshold": 1e9})
    report = validate_package(copy)
    assert report.sound
    assert [f.message for f in report.findings] == ["components.py finds no object in the test output"]


def test_a_file_that_readers_would_leave_behind_is_found(copy: Path) -> None:
    rdf = rdf_of(copy)
    rdf["attachments"] = [a for a in rdf["attachments"] if a["source"] != "components.py"]
    (copy / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")
    assert [f.code for f in validate_package(copy).of("warning")] == ["grouping"]


# Methods of others


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_grouping.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("others")
def test_code_of_others_is_exported_and_run_with_consent_only(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = grouping_recipe(callable="their_grouping.group", kwargs={})
    with pytest.raises(ComponentError, match="--allow-code their_grouping"):
        export(recipe, pair_2d, tmp_path / "p")
    folder = export(recipe, pair_2d, tmp_path / "p", trusted=["their_grouping"]).folder
    assert (folder / "their_grouping.py").read_text() == OTHERS
    report = validate_package(folder)
    assert [(f.code, f.severity) for f in report.findings] == [("skipped", "info")]
    assert validate_package(folder, allow_code=True).findings == ()
    package = open_package(folder)
    with pytest.raises(PackageError, match="allow_code=True"):
        predict_array(package, pair_2d.input)
    assert predict_array(package, pair_2d.input, allow_code=True).max() == 1


def test_a_function_without_a_file_of_its_own_is_refused(pair_2d: Pair, tmp_path: Path) -> None:
    recipe = grouping_recipe(callable="numpy.sum", kwargs={})
    with pytest.raises(PackageError, match="not defined in a Python file of its own"):
        export(recipe, pair_2d, tmp_path / "p", trusted=["numpy"])
    assert not (tmp_path / "p").exists()


# Recipes


def test_a_recipe_with_grouping_is_written_and_read_back() -> None:
    recipe = grouping_recipe()
    assert make_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_only_instances_are_grouped() -> None:
    content = grouping_recipe().model_dump(mode="json", exclude_none=True)
    content["output"]["task"] = "semantic"
    with pytest.raises(RecipeError, match="output: grouping makes instance labels, but the task is semantic"):
        make_recipe(content, "a test")
