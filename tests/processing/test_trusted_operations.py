"""Custom operations of ours: named in a recipe, run without consent where they are byte for byte ours, and nowhere else."""

import ast
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5
from numpy.typing import NDArray

import im2im_zoo.processing.custom as folder
from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.released_files import trusted_callables
from im2im_zoo.processing import fit
from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation

OURS = sorted(path for path in Path(str(folder.__file__)).parent.glob("*.py") if path.stem != "__init__")
CENTRE = next(path for path in OURS if path.stem == "centre_normalisation")


@pytest.fixture
def image(nuclei_3d: tuple[NDArray[np.uint16], NDArray[np.uint16]]) -> xr.DataArray:
    return xr.DataArray(nuclei_3d[0][None], dims=("channel", "z", "y", "x"), name="raw")


def operation(source: str, callable: str = "centre_normalisation") -> v0_5.CustomProcessingDescr:
    with ValidationContext(perform_io_checks=False):
        return v0_5.CustomProcessingDescr(
            callable=callable,
            source=source,  # type: ignore[arg-type]
            kwargs={"axes": "czyx", "chunk_size": 8},
        )


def test_a_recipe_names_ours_and_needs_neither_folder_nor_consent(image: xr.DataArray) -> None:
    pipeline = fit([operation("im2im_zoo/centre_normalisation.py")], image)
    expected = centre_normalisation(chunk_size=8)(image.to_numpy())
    np.testing.assert_array_equal(pipeline(image), expected)
    assert pipeline.whole_axes == {"channel", "z", "y", "x"}


def test_a_copy_of_ours_runs_without_consent_and_a_changed_one_does_not(
    image: xr.DataArray, tmp_path: Path
) -> None:
    copy = tmp_path / "renamed.py"
    copy.write_bytes(CENTRE.read_bytes())
    fit([operation("renamed.py")], image, root=tmp_path)(image)
    copy.write_bytes(CENTRE.read_bytes() + b"\nopen(__file__ + '.ran', 'w').close()\n")
    with pytest.raises(ProcessingError, match="allow_code=True"):
        fit([operation("renamed.py")], image, root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["renamed.py"]
    fit([operation("renamed.py")], image, root=tmp_path, allow_code=True)
    assert (tmp_path / "renamed.py.ran").exists()


@pytest.mark.parametrize("callable", ["CentreNormalisation", "np", "__import__"])
def test_only_the_operation_itself_is_trusted_of_our_files(image: xr.DataArray, callable: str) -> None:
    with pytest.raises(ProcessingError, match="allow_code=True"):
        fit([operation("im2im_zoo/centre_normalisation.py", callable)], image)


@pytest.mark.parametrize(
    "source", ["im2im_zoo/other.py", "im2im_zoo/__init__.py", "im2im_zoo/../custom_code.py"]
)
def test_what_is_not_among_ours_is_refused_with_their_names(image: xr.DataArray, source: str) -> None:
    with pytest.raises(ProcessingError, match=r"im2im_zoo/centre_normalisation\.py, im2im_zoo/macenko\.py"):
        fit([operation(source)], image, allow_code=True)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_file_that_is_shipped_needs_numpy_alone_and_has_an_operation_of_its_name(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    assert {module.split(".")[0] for module in modules} == {"numpy"}
    assert path.stem in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert path.stem in trusted_callables("operation").values()
