"""Groupings that are not run without consent, or not at all, and what is said of it."""

from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from groupings_for_tests import COLUMNS, COMPONENTS, MakeGrouped, with_grouping

from im2im_zoo.core.errors import ImageError, PackageError
from im2im_zoo.runtime import predict, predict_array
from im2im_zoo.runtime.execute.work_folder import work_folder


def test_code_of_others_needs_consent_before_anything_is_computed(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    package = make_grouped(code=COLUMNS, name="columns.py", kwargs={})
    for call in (
        lambda **o: predict(package, image, tmp_path / "o.tif", **o),
        lambda **o: predict_array(package, image, **o),
    ):
        with pytest.raises(PackageError, match=r"'group' of columns\.py runs Python code.*--allow-code"):
            call()
        call(group=False)
        (tmp_path / "o.tif").unlink(missing_ok=True)
        call(allow_code=True)
        (tmp_path / "o.tif").unlink(missing_ok=True)
    assert not work_folder(tmp_path / "o.tif").exists()


def test_ours_with_a_byte_more_needs_consent(make_grouped: MakeGrouped, image: xr.DataArray) -> None:
    with pytest.raises(PackageError, match="allow_code=True"):
        predict_array(make_grouped(code=COMPONENTS + "\n"), image)


def test_another_function_of_our_file_needs_consent(make_grouped: MakeGrouped, image: xr.DataArray) -> None:
    with pytest.raises(PackageError, match="allow_code=True"):
        predict_array(make_grouped(callable="_runs"), image)


def test_a_file_that_was_changed_never_runs(make_grouped: MakeGrouped, image: xr.DataArray) -> None:
    package = make_grouped()
    (package.root / "components.py").write_text(COMPONENTS + "\nraise RuntimeError('it ran')\n")
    with pytest.raises(PackageError, match="has not been run"):
        predict_array(package, image, allow_code=True)


def test_a_file_that_is_missing_or_outside_is_refused(make_grouped: MakeGrouped, image: xr.DataArray) -> None:
    package = make_grouped()
    (package.root / "components.py").unlink()
    with pytest.raises(PackageError, match="there is no file"):
        predict_array(package, image)
    outside = with_grouping(package.root, name="../components.py")
    with pytest.raises(PackageError, match="lies outside the package"):
        predict_array(outside, image)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def group(maps):\n    return maps[:1].astype(int)", r"labels of shape \(1, 130, 150\)"),
        ("def group(maps):\n    return maps[0]", "float32 values"),
        ("def group(maps):\n    return maps[0].astype(int) - 9", "labels must be integers of 0 or more"),
        ("def group(maps):\n    raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def group(maps):\n    maps[:] = 0", "read-only"),
        ("def group(maps, size):\n    pass", "does not take the kwargs.*'size'"),
        ("import nowhere", "cannot be imported"),
        ("groups = 1", "defines no callable"),
    ],
)
def test_a_function_that_does_not_make_labels_is_refused_in_a_sentence(
    make_grouped: MakeGrouped, image: xr.DataArray, code: str, message: str
) -> None:
    package = make_grouped(code=code + "\n", name="mine.py", kwargs={})
    with pytest.raises(PackageError, match=message) as refused:
        predict_array(package, image, allow_code=True)
    assert "'group' of mine.py" in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"output": "other"}, "its output 'other'|output is 'other'"),
        ({"callable": 3}, "needs the keys"),
        ({"kwargs": [1]}, "needs the keys"),
        ({"sha256": None}, "needs the keys"),
    ],
)
def test_a_config_that_is_not_ours_is_refused_when_the_package_is_opened(
    make_grouped: MakeGrouped, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        make_grouped(**entry)


def test_an_output_that_labels_cannot_be_written_to_is_refused_at_once(
    make_grouped: MakeGrouped, image: xr.DataArray, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"o\.png: .*cannot be written tile by tile.*view o\.tif -o o\.png"):
        predict(make_grouped(), image, tmp_path / "o.png")
    assert not list(tmp_path.glob("o.png*"))
