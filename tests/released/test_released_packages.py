"""Packages that earlier versions exported: they run without consent, are sound, and give what they gave."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core import released_files
from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.core.released_files import ReleasedFile
from im2im_zoo.images import open_image
from im2im_zoo.instances.blockwise import group_in_blocks
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.instances.blockwise.steps import StepRunner
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.runtime import plan_prediction, predict, predict_arrays
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.plan.memory import Cost

HERE = Path(__file__).parent
Copied = Callable[[str], Path]
FOLDERS = sorted(str(p.parent.relative_to(HERE)) for p in HERE.glob("[0-9]*/*/package"))
SHIPPING = [folder for folder in FOLDERS if not folder.endswith("semantic")]
WITH_LABELS = [folder for folder in FOLDERS if (HERE / folder / "labels.npy").is_file()]
SMALL = {"y": 40, "x": 40}
COST = Cost(2**28, 2**23, 100.0)


def image_of(folder: str) -> xr.DataArray:
    values = np.load(HERE / folder / "image.npy")
    return xr.DataArray(values, dims=("channel", "y", "x")[-values.ndim :])


def check(folder: str, results: Mapping[str, xr.DataArray]) -> None:
    """The maps, and the labels if there are any, are those of the version."""
    [maps] = [array for name, array in results.items() if name != "instances"]
    np.testing.assert_allclose(maps, np.load(HERE / folder / "maps.npy"), rtol=1e-5, atol=1e-5)
    assert ("instances" in results) == (folder in WITH_LABELS)
    if folder in WITH_LABELS:
        np.testing.assert_array_equal(results["instances"], np.load(HERE / folder / "labels.npy"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_sound_without_consent(folder: str) -> None:
    report = validate_package(HERE / folder / "package")
    assert report.of("error") == ()
    skipped = [f for f in report.findings if f.code == "skipped" and not f.field.startswith("weights")]
    assert skipped == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_weights_format_gives_what_it_gave(folder: str) -> None:
    with open_package(HERE / folder / "package") as package:
        for weights in package.weights:
            allowed = weights == "pytorch_state_dict"
            check(
                folder,
                predict_arrays(package, image_of(folder), whole=True, weights=weights, allow_code=allowed),
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_in_tiles_it_gives_what_it_gave(folder: str, tmp_path: Path) -> None:
    with open_package(HERE / folder / "package") as package:
        check(folder, predict_arrays(package, image_of(folder), tile=SMALL))
        done = predict(package, image_of(folder), tmp_path / "result.ome.zarr", tile=SMALL)
    assert len(done.plan.axes[0].spans) > 1
    wanted = np.load(HERE / folder / "maps.npy")
    results = {"maps": open_image(tmp_path / "result.ome.zarr").transpose(..., "y", "x")}
    results["maps"] = results["maps"][*[0] * (results["maps"].ndim - wanted.ndim)]
    check(folder, results | ({"instances": open_image(done.labels).squeeze()} if done.labels else {}))


@dataclass
class Labels:
    """Where blocks are written."""

    values: NDArray[Any]

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        self.values[tuple(region.values())] = block


def in_blocks(package: Package, maps: NDArray[np.float32], work: Path) -> tuple[NDArray[Any], list[str]]:
    """The labels that are found in small blocks, without consent, and the warnings."""
    grouping, axes = package.grouping, ("y", "x")
    assert grouping is not None
    labels = Labels(np.zeros(maps.shape[1:], np.uint32))
    code = Code(grouping, package.root, allow_code=False)
    sample = Sample(
        xr.DataArray(maps, dims=("channel", *axes)),
        axes,
        BlockGrid(maps.shape[1:], (24, 20)),
        work,
        code,
        2**40,
        100,
    )
    target = LabelImage(labels, axes, maps.shape[1:], "uint32", axes, {}, "a package")  # type: ignore[arg-type]
    _, warnings = group_in_blocks(sample, target, StepRunner(InProcess()))
    return labels.values, warnings


@pytest.mark.parametrize("folder", WITH_LABELS)
def test_in_blocks_the_labels_are_what_they_were(folder: str, tmp_path: Path) -> None:
    with open_package(HERE / folder / "package") as package:
        plan = plan_prediction(package, image_of(folder))
        assert plan.grouping is not None
        assert plan.grouping.exact
        labels, warnings = in_blocks(package, np.load(HERE / folder / "maps.npy"), tmp_path)
    np.testing.assert_array_equal(labels, np.load(HERE / folder / "labels.npy"))
    assert warnings == []


@pytest.mark.parametrize("folder", WITH_LABELS)
def test_an_image_that_does_not_fit_the_memory_is_planned_in_exact_blocks(folder: str) -> None:
    large = xr.DataArray(np.broadcast_to(np.uint8(0), (20_000, 20_000)), dims=("y", "x"))
    with open_package(HERE / folder / "package") as package:
        plan = plan_prediction(package, large, memory=2**32, cost=COST)
    assert plan.grouping is not None
    assert plan.grouping.block is not None
    assert plan.grouping.exact


def reworded(package: Path) -> tuple[ReleasedFile, str]:
    """Reword a comment of the file that a package ships, as another version of it; its entry, and the new SHA-256."""
    for path in package.glob("*.py"):
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        known = [file for file in released_files.RELEASED_FILES if file.sha256 == before]
        if known:
            path.write_text(path.read_text(encoding="utf-8") + "\n# Worded otherwise.\n", encoding="utf-8")
            after = hashlib.sha256(path.read_bytes()).hexdigest()
            rdf = package / "rdf.yaml"
            rdf.write_text(rdf.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
            return known[0], after
    raise AssertionError(f"{package} ships no file of ours")


@pytest.mark.parametrize("folder", SHIPPING)
def test_a_file_of_another_version_than_todays_is_as_good(
    folder: str, copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(f"{folder}/package")
    entry, sha256 = reworded(path)
    with open_package(path) as package, pytest.raises(Im2ImError, match="allow_code=True"):
        predict_arrays(package, image_of(folder), whole=True)
    other = replace(entry, sha256=sha256, versions=("0.0.9",))
    monkeypatch.setattr(released_files, "RELEASED_FILES", (*released_files.RELEASED_FILES, other))
    assert validate_package(path).of("error") == ()
    with open_package(path) as package:
        check(folder, predict_arrays(package, image_of(folder), tile=SMALL))
        if folder in WITH_LABELS:
            labels, warnings = in_blocks(package, np.load(HERE / folder / "maps.npy"), tmp_path / "work")
            np.testing.assert_array_equal(labels, np.load(HERE / folder / "labels.npy"))
            assert warnings == []


@pytest.mark.parametrize("folder", WITH_LABELS)
def test_a_file_whose_results_are_no_longer_todays_is_trusted_but_not_exact_in_blocks(
    folder: str, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(f"{folder}/package")
    entry, sha256 = reworded(path)
    other = replace(entry, sha256=sha256, implementation=None)
    monkeypatch.setattr(released_files, "RELEASED_FILES", (*released_files.RELEASED_FILES, other))
    with open_package(path) as package:
        plan = plan_prediction(package, image_of(folder))
        assert plan.grouping is not None
        assert not plan.grouping.exact
        maps = predict_arrays(package, image_of(folder), whole=True)
    found, wanted = maps["instances"].to_numpy(), np.load(HERE / folder / "labels.npy")
    np.testing.assert_array_equal(found > 0, wanted > 0)
    assert found.max() == wanted.max()
