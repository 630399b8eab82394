"""The operation of docs/adding-an-operation.md is applied as it stands there; those of the spec are all found."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5

import im2im_zoo.processing.operations as folder
from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing import fit, whole_axes
from im2im_zoo.processing.operations import operation_class
from im2im_zoo.processing.operations.registry import find_operation
from im2im_zoo.processing.requirements import check_operations

NAME = "im2im_zoo.processing.operations.scale_maximum"
# Instance segmentation on whole maps (`instances/library`), which no pipeline does.
INSTANCES = {"stardist_postprocessing", "cellpose_flow_dynamics"}


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "adding-an-operation.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def added(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file that the text shows, in the folder of the operations."""
    (tmp_path / "scale_maximum.py").write_text(blocks(text)[0])
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    find_operation.cache_clear()
    yield
    sys.modules.pop(NAME, None)
    find_operation.cache_clear()


@pytest.mark.usefixtures("added")
def test_the_operation_of_the_text_gives_tiles_the_bits_of_the_whole_behind_others() -> None:
    module: Any = importlib.import_module(NAME)
    values = np.random.default_rng(0).gamma(2.0, 60.0, (2, 31, 45)).astype(np.uint16)
    image = xr.DataArray(values, dims=("channel", "y", "x"))
    divide = module.ScaleMaximumDescr(kwargs={"axes": ["x"]})
    chain = [v0_5.ClipDescr(kwargs=v0_5.ClipKwargs(max_percentile=90, axes=None)), divide]
    pipeline = fit(chain, image, block_bytes=9000)
    whole = pipeline(image)
    assert whole.max() == 1
    placed = image.assign_coords({a: np.arange(n) for a, n in image.sizes.items()})
    for y in range(0, 31, 8):
        for x in range(0, 45, 11):
            cut = {"y": slice(y, y + 8), "x": slice(x, x + 11)}
            np.testing.assert_array_equal(pipeline(placed.isel(cut)).to_numpy(), whole.isel(cut).to_numpy())


@pytest.mark.usefixtures("added")
def test_the_test_of_the_text_passes(text: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks(text)[1], "test_scale_maximum", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 1
    assert callable(tests[0])
    tests[0]()


def test_the_text_counts_its_lines(text: str) -> None:
    assert f"It has {len(blocks(text)[0].splitlines())} lines" in text


def test_every_operation_of_the_spec_has_a_class() -> None:
    described = {
        described.model_fields["id"].annotation.__args__[0]
        for union in (v0_5.PreprocessingDescr, v0_5.PostprocessingDescr)
        for described in get_args(get_args(union)[0])
    }
    assert len(described) >= 13
    for name in described - INSTANCES:
        found = find_operation(name)
        assert found is not None, name
        assert found.id == name
    assert all(find_operation(name) is None for name in INSTANCES)


@pytest.mark.parametrize("name", ["base", "arithmetic", "registry", "nothing", "../custom_code", "__init__"])
def test_no_other_module_is_taken_for_an_operation(name: str) -> None:
    assert find_operation(name) is None


def test_an_unknown_operation_is_refused_by_name() -> None:
    class Unknown:
        id = "sharpen"

    with pytest.raises(ProcessingError, match="'sharpen' is not implemented; update im2im_zoo"):
        operation_class(Unknown())
    with pytest.raises(ProcessingError, match=r"operation 1 \(sharpen\): .*not implemented"):
        check_operations([Unknown()], ["y", "x"])  # type: ignore[list-item]


def test_whole_axes_are_those_of_the_fitted_step() -> None:
    image = xr.DataArray(np.zeros((2, 4, 4), np.float32), dims=("channel", "y", "x"))
    for axis in ("channel", "x"):
        softmax = v0_5.SoftmaxDescr(kwargs=v0_5.SoftmaxKwargs(axis=v0_5.AxisId(axis)))
        assert whole_axes(softmax, ["channel", "y", "x"]) == fit([softmax], image).whole_axes == {axis}
    assert whole_axes(v0_5.SigmoidDescr(), ["channel", "y", "x"]) == frozenset()
