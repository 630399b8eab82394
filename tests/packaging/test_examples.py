"""The examples of a package are filled in for it: the one of bioimageio.core runs, the others are checked as far as they can be here."""

import ast
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from im2im_zoo.packaging import Exported
from im2im_zoo.packaging.export.examples import examples


# bioimageio.spec leaves the package's files open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_example_of_bioimageio_core_gives_the_test_output(folder_2d: Path) -> None:
    scope = runpy.run_path(str(folder_2d / "example_bioimageio_core.py"))
    expected = np.load(folder_2d / "test_output.npy")
    inside = (..., slice(8, -8), slice(8, -8))  # it mirrors the image, and takes its statistics after that
    assert np.abs(scope["result"].to_numpy()[inside] - expected[inside]).max() < 0.01


def test_every_example_is_in_the_zip_and_among_the_attachments(
    packaged: Callable[[int, str], Exported],
) -> None:
    package = packaged(2, "semantic")
    rdf = yaml.safe_load((package.folder / "rdf.yaml").read_text(encoding="utf-8"))
    names = set(examples(rdf))
    assert names == {p.name for p in package.folder.glob("example_*")}
    assert names <= {a["source"] for a in rdf["attachments"]}
    assert package.zip_path is not None
    with zipfile.ZipFile(package.zip_path) as archive:
        assert names <= set(archive.namelist())


@pytest.mark.parametrize(("task", "ndim"), [("semantic", 2), ("regression", 3)])
def test_examples_are_of_programs_that_open_the_package(
    packaged: Callable[[int, str], Exported], task: str, ndim: int
) -> None:
    folder = packaged(ndim, task).folder
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    made = examples(rdf)
    assert ("example_qupath.groovy" in made) == (ndim == 2)
    for name, text in made.items():
        assert rdf["name"] in text, name
        if name.endswith(".py"):
            ast.parse(text)
        else:
            assert "the export did not run it" in text
    if ndim == 2:
        script = made["example_qupath.groovy"]
        assert "pixelSizeMicrons(0.2, 0.2)" in script
        assert 'put("tiny-semantic-2d", classifier)' in script.replace("'", '"')
