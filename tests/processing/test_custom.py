"""Custom operations: run on the whole image, and never without consent, outside the package, or changed."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing import fit, needs_statistics
from im2im_zoo.processing.requirements import check_operations

CODE = '''
from __future__ import annotations
import pathlib
from dataclasses import dataclass
import numpy as np
from scipy import ndimage

pathlib.Path(__file__).with_suffix(".ran").touch()

@dataclass
class Label:
    """Connected components above a threshold."""
    threshold: float = 0.5
    def __call__(self, array: np.ndarray) -> np.ndarray:
        mask = array > self.threshold
        array[...] = 0  # whatever the code does to its argument stays its own affair
        return ndimage.label(mask)[0].astype(np.int32)

def first_channel():
    return lambda array: array[:1]

def squeeze():
    return lambda array: array[0]

def crop():
    return lambda array: array[..., 1:]

def broken():
    def run(array):
        raise ValueError("no such luck")
    return run

number = 3
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "ops.py").write_text(CODE)
    return tmp_path / "package"


@pytest.fixture
def image(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    return xr.DataArray(np.stack([nuclei_2d[0], nuclei_2d[0] // 2]), dims=("channel", "y", "x"), name="raw")


def custom(
    callable: str = "Label", source: str = "ops.py", sha256: str | None = None, **kwargs: object
) -> v0_5.CustomProcessingDescr:
    # Built without reading the file, as a recipe or a package elsewhere on disk is.
    from bioimageio.spec import ValidationContext

    with ValidationContext(perform_io_checks=False):
        return v0_5.CustomProcessingDescr(callable=callable, source=source, sha256=sha256, kwargs=kwargs)  # type: ignore[arg-type]


def ran(package: Path) -> bool:
    return (package / "ops.ran").exists()


def test_the_callable_is_made_with_its_kwargs_and_given_the_whole_image(
    package: Path, image: xr.DataArray
) -> None:
    operation = custom(threshold=100.0, sha256=hashlib.sha256(CODE.encode()).hexdigest())
    before = image.copy(deep=True)
    pipeline = fit([operation], image, allow_code=True, root=package)
    from scipy import ndimage

    labels = pipeline(image)
    assert labels.max() > 10
    np.testing.assert_array_equal(labels.to_numpy(), ndimage.label(before.to_numpy() > 100)[0])
    assert image.identical(before)
    assert not pipeline.is_pointwise
    assert pipeline.whole_axes == {"channel", "y", "x"}


def test_nothing_runs_without_consent(package: Path, image: xr.DataArray) -> None:
    with pytest.raises(ProcessingError, match=r"operation 1 \(custom\).*'Label' of ops.py.*allow_code=True"):
        fit([custom()], image, root=package)
    assert not ran(package)


def test_a_changed_file_is_never_run(package: Path, image: xr.DataArray) -> None:
    operation = custom(sha256=hashlib.sha256(CODE.encode()).hexdigest())
    (package / "ops.py").write_text(CODE + "\n# one more line\n")
    with pytest.raises(ProcessingError, match="has not been run"):
        fit([operation], image, allow_code=True, root=package)
    assert not ran(package)


def test_without_a_sha256_consent_is_enough(package: Path, image: xr.DataArray) -> None:
    fit([custom()], image, allow_code=True, root=package)
    assert ran(package)


@pytest.mark.parametrize(
    "source", ["../outside.py", "folder/../../outside.py", "link.py", "folder/../ops.py"]
)
def test_a_file_outside_the_package_is_never_run(package: Path, image: xr.DataArray, source: str) -> None:
    outside = package.parent / "outside.py"
    outside.write_text(CODE)
    (package / "folder").mkdir()
    (package / "link.py").symlink_to(outside)
    with pytest.raises(ProcessingError, match="outside the package"):
        fit([custom(source=source)], image, allow_code=True, root=package)
    assert not outside.with_suffix(".ran").exists()


def test_a_folder_must_be_given_to_look_in(package: Path, image: xr.DataArray) -> None:
    with pytest.raises(ProcessingError, match="pass root"):
        fit([custom()], image, allow_code=True)
    with pytest.raises(ProcessingError, match=r"no file .*missing\.py"):
        fit([custom(source="missing.py")], image, allow_code=True, root=package)


@pytest.mark.parametrize(
    ("callable", "kwargs", "message"),
    [
        ("Label", {"treshold": 1}, "cannot be made with kwargs .*treshold"),
        ("number", {}, "defines no callable"),
        ("absent", {}, "defines no callable"),
    ],
)
def test_what_cannot_be_made_is_said(
    package: Path, image: xr.DataArray, callable: str, kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(ProcessingError, match=message):
        fit([custom(callable, **kwargs)], image, allow_code=True, root=package)


def test_a_file_that_cannot_be_imported_is_said(package: Path, image: xr.DataArray) -> None:
    (package / "bad.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ProcessingError, match="no_such_module_anywhere"):
        fit([custom(source="bad.py")], image, allow_code=True, root=package)


def test_an_operation_that_fails_names_itself_and_the_tensor(package: Path, image: xr.DataArray) -> None:
    pipeline = fit([custom("broken")], image, allow_code=True, root=package)
    with pytest.raises(ProcessingError, match=r"'broken' of ops.py failed on tensor 'raw'.*no such luck"):
        pipeline(image)


@pytest.mark.parametrize("callable", ["squeeze", "crop"])
def test_a_changed_shape_is_refused(package: Path, image: xr.DataArray, callable: str) -> None:
    pipeline = fit([custom(callable)], image, allow_code=True, root=package)
    with pytest.raises(ProcessingError, match="must keep every axis"):
        pipeline(image)


def test_the_number_of_channels_may_change(package: Path, image: xr.DataArray) -> None:
    named = image.assign_coords(channel=["a", "b"], y=np.arange(512))
    one = fit([custom("first_channel")], named, allow_code=True, root=package)(named)
    assert dict(one.sizes) == {"channel": 1, "y": 512, "x": 512}
    assert set(one.coords) == {"y"}


def test_statistics_behind_a_custom_operation_are_of_its_result(package: Path, image: xr.DataArray) -> None:
    scale = v0_5.ScaleRangeDescr(kwargs=v0_5.ScaleRangeKwargs(axes=[v0_5.AxisId(a) for a in image.dims]))
    operations = [
        v0_5.ScaleLinearDescr(kwargs=v0_5.ScaleLinearKwargs(gain=2.0)),
        custom(threshold=200.0),
        scale,
    ]
    out = fit(operations, image, allow_code=True, root=package, block_bytes=100_000)(image)
    assert needs_statistics(operations)
    np.testing.assert_allclose([out.min(), out.max()], [0, 1], rtol=1e-6)


def test_checking_a_recipe_runs_no_code(package: Path) -> None:
    check_operations([custom()], ("channel", "y", "x"))
    assert not ran(package)
