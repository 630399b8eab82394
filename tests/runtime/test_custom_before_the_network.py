"""Packages whose preprocessing begins with custom operations: done by the runtime, on the whole image, with consent."""

import hashlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from operations_for_tests import NORMALISE_3D, SIGMOID
from packages_for_tests import build_package, small_unet

import im2im_zoo.processing.custom.centre_normalisation as centre_module
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.engines import Engine
from im2im_zoo.package import Package, open_package
from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation
from im2im_zoo.runtime import open_network, plan_prediction, predict_array
from im2im_zoo.runtime.execute.sample_maker import SampleMaker

CENTRE = inspect.getsource(centre_module)
# Depends on the whole image: tiles that are processed by themselves give something else.
CUMULATIVE = """
import numpy as np

def cumulative(gain=1.0):
    return lambda array: (gain * np.cumsum(array, axis=-1, dtype=float) / array.shape[-1]).astype("float32")
"""
TILE = {"z": 26, "y": 44, "x": 44}
Build = Callable[..., Package]


def with_config(path: Path, entries: Any) -> Package:
    rdf = yaml.safe_load((path / "rdf.yaml").read_text())
    rdf["config"] = {"im2im_zoo": {"preprocessing": entries}}
    (path / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return open_package(path)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A network for volumes of one channel behind an operation; further arguments are its kwargs."""
    built: dict[tuple[str, str], Path] = {}

    def build(callable: str, code: str, **kwargs: Any) -> Package:
        if (callable, code) not in built:
            built[callable, code] = build_package(
                tmp_path_factory.mktemp("package") / callable,
                small_unet(ndim=3, levels=1, width=3),
                axes=("batch", "channel", "z", "y", "x"),
                minimum=18,
                step=2,
                halo=8,
                preprocessing=[NORMALISE_3D],
                postprocessing=[SIGMOID],
                sources={"operation.py": code},
            )
        digest = hashlib.sha256(code.encode()).hexdigest()
        custom = {
            "id": "custom",
            "callable": callable,
            "source": "operation.py",
            "sha256": digest,
            "kwargs": kwargs,
        }
        cast = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
        return with_config(built[callable, code], [{"tensor": "raw", "operations": [custom, cast]}])

    return build


@pytest.fixture(scope="module")
def centre(volumes: Build) -> Package:
    return volumes("centre_normalisation", CENTRE, axes="czyx", chunk_size=6)


@pytest.fixture(scope="module")
def image(nuclei_3d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    return xr.DataArray(nuclei_3d[0], dims=("z", "y", "x"))


def engine_of(package: Package) -> Engine:
    return open_network(package, threads=1, measure=False).engine


def whole_by_hand(engine: Engine, made: np.ndarray) -> np.ndarray:
    """Normalise with numpy, pad with numpy, run once, cut, sigmoid."""
    values = ((made - made.mean()) / (made.std() + 1e-6)).astype(np.float32)
    padded = np.pad(values, [(0, n % 2) for n in values.shape], mode="reflect")
    (output,) = engine([padded[None, None]])
    z, y, x = made.shape
    return 1 / (1 + np.exp(-output[0, 0, :z, :y, :x]))


def test_centre_normalisation_is_of_the_whole_image_whatever_the_tiles(
    centre: Package, image: xr.DataArray
) -> None:
    engine = engine_of(centre)
    expected = whole_by_hand(engine, centre_normalisation(chunk_size=6)(image.to_numpy()[None])[0])
    whole = predict_array(centre, image, engine=engine, whole=True)
    tiled = predict_array(centre, image, engine=engine, tile=TILE, halo=8)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


def test_any_operation_sees_the_whole_image_at_once(volumes: Build, image: xr.DataArray) -> None:
    package = volumes("cumulative", CUMULATIVE, gain=2.0)
    engine = engine_of(package)
    values = image.to_numpy()
    expected = whole_by_hand(engine, 2 * np.cumsum(values, axis=-1, dtype=float) / values.shape[-1])
    tiled = predict_array(package, image, engine=engine, tile=TILE, halo=8, allow_code=True)
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


def test_each_frame_has_its_own_statistics(centre: Package, image: xr.DataArray) -> None:
    engine = engine_of(centre)
    movie = xr.concat([image, image // 2 + 300], dim="time")
    result = predict_array(centre, movie, engine=engine, tile=TILE, halo=8)
    for number in range(2):
        alone = predict_array(centre, movie[number], engine=engine, whole=True)
        np.testing.assert_allclose(result[number], alone, atol=1e-5)


def test_several_processes_share_the_processed_image_in_a_file(
    centre: Package, image: xr.DataArray, tmp_path: Path
) -> None:
    plan = plan_prediction(centre, image, tile=TILE)
    expected = centre_normalisation(chunk_size=6)(image.to_numpy()[None])
    one, two = (SampleMaker(plan, centre, {"raw": image}, folder=tmp_path) for _ in range(2))
    in_memory = SampleMaker(plan, centre, {"raw": image})
    for maker in (one, two, in_memory):
        [tensor] = maker(0).tensors
        np.testing.assert_array_equal(tensor, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["0_raw_custom.npy"]


def test_the_plan_says_that_the_image_is_taken_whole_and_counts_its_memory(
    centre: Package, image: xr.DataArray
) -> None:
    plan = plan_prediction(centre, image)
    assert plan.whole_before == {"raw"}
    assert "raw: preprocessed as a whole, before the tiles" in str(plan)
    assert plan.memory.whole == 16 * image.size


def test_code_of_others_needs_consent_and_a_changed_file_never_runs(
    volumes: Build, image: xr.DataArray
) -> None:
    package = volumes("cumulative", CUMULATIVE)
    engine = engine_of(package)
    with pytest.raises(ProcessingError, match=r"'cumulative' of operation\.py.*allow_code=True"):
        predict_array(package, image, engine=engine)
    file = package.root / "operation.py"
    file.write_text(CUMULATIVE + "\nraise RuntimeError('it ran')\n")
    try:
        with pytest.raises(ProcessingError, match="has not been run"):
            predict_array(package, image, engine=engine, allow_code=True)
    finally:
        file.write_text(CUMULATIVE)


def test_ours_with_a_byte_more_needs_consent(volumes: Build, image: xr.DataArray) -> None:
    package = volumes("centre_normalisation", CENTRE + "\n", axes="czyx", chunk_size=6)
    with pytest.raises(ProcessingError, match="allow_code=True"):
        predict_array(package, image, engine=engine_of(package))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("clip", "not a list of mappings"),
        ([{"tensor": "other", "operations": []}], r"\[0\]\.tensor is 'other': name each input once, of raw"),
        ([{"tensor": "raw", "operations": [{"id": "blur"}]}], r"operations: 0: .*'blur'"),
        ([{"tensor": "raw", "operations": None}], r"\[0\]\.operations"),
    ],
)
def test_a_config_that_is_not_ours_is_refused_when_the_package_is_opened(
    centre: Package, tmp_path: Path, entries: Any, message: str
) -> None:
    copy = Path(shutil.copytree(centre.root, tmp_path / "copy"))
    with pytest.raises(PackageError, match=message):
        with_config(copy, entries)
