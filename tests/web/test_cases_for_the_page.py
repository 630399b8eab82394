"""The expected values that the page's own tests (`web/test`) compare with are those of this implementation."""

import base64
import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import tifffile
from image_files import FILE as IMAGES
from label_cases import FILE as LABELS
from label_cases import label_cases
from operation_cases import FILE as OPERATIONS
from operation_cases import operation_cases
from zarr_files import FILE as ZARRS
from zarr_files import zarr_files

WEB = IMAGES.parents[1]


def test_operations_give_the_values_that_the_page_is_tested_with() -> None:
    stored = json.loads(OPERATIONS.read_text(encoding="utf-8"))["cases"]
    today = json.loads(json.dumps(operation_cases()))
    assert [case["name"] for case in stored] == [case["name"] for case in today]
    for one, other in zip(stored, today, strict=True):
        values, expected = one["expected"].pop("values"), other["expected"].pop("values")
        assert one == other
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)


def test_tiff_files_have_the_values_that_the_page_is_tested_with() -> None:
    stored = json.loads(IMAGES.read_text(encoding="utf-8"))["files"]
    for one in stored:
        if not one["name"].endswith(".tif") or one["name"].startswith(("imagej", "ome", "colour")):
            continue
        array = tifffile.imread(io.BytesIO(base64.b64decode(one["file"])))
        assert list(array.reshape(-1, *array.shape[-2:]).shape) == [one["shape"][0], *one["shape"][2:]]
        assert array.ravel()[:: one["every"]].astype(float).tolist() == one["values"], one["name"]


def test_zarr_files_have_the_values_that_the_page_is_tested_with() -> None:
    stored = json.loads(ZARRS.read_text(encoding="utf-8"))["files"]
    today = zarr_files()
    for one, other in zip(stored, today, strict=True):
        # Compressors may write other bytes tomorrow.
        assert one | {"file": ""} == other | {"file": ""}


def test_labels_are_those_that_the_page_is_tested_with() -> None:
    assert json.loads(LABELS.read_text(encoding="utf-8")) == label_cases()


def test_the_lock_file_names_no_server() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tests_of_the_page_pass() -> None:
    if shutil.which("npx") is None or not (WEB / "node_modules").is_dir():
        pytest.skip("the page's own tests need Node.js and web/node_modules: run `make web`")
    done = subprocess.run(["npx", "vitest", "run"], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
