"""Every executor gives the same bits: tiles and instances, from start to end and resumed."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.engines import open_engine
from im2im_zoo.images import open_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import Model, Resources, Settings
from im2im_zoo.runtime.execute.executors.process_pool import LocalProcesses

TILE = {"y": 64, "x": 64}


@pytest.fixture
def documented(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of docs/adding-an-executor.md, importable as a user's file is, in child processes too."""
    text = (repository / "docs" / "adding-an-executor.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "reversed_executor.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    module = __import__("reversed_executor")
    yield module
    del sys.modules["reversed_executor"]


def image_of(shape: tuple[int, int]) -> xr.DataArray:
    return xr.DataArray(np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16), dims=("y", "x"))


def test_an_executor_in_a_file_of_its_own_gives_the_same_bits(
    unet_2d: Package, documented: ModuleType, tmp_path: Path
) -> None:
    image, settings = image_of((200, 150)), Settings(tile=TILE, halo=16)
    model = Model(unet_2d)
    expected = model.predict_array(image, settings=settings)
    told: list[int] = []
    done = model.predict(
        image,
        tmp_path / "out.ome.zarr",
        settings=settings,
        resources=Resources(executor=documented.Reversed()),
        progress=lambda stage, voxels, total: told.append(voxels) if stage == "tiles" else None,
    )
    assert done.tiles > 4
    assert told[-1] == 200 * 150
    np.testing.assert_array_equal(open_image(done.output).to_numpy(), expected.to_numpy())


def test_torchscript_gives_the_same_bits_in_any_process_that_computes_with_as_many_threads(
    unet_2d: Package, tmp_path: Path
) -> None:
    image = image_of((150, 130))
    settings = Settings(tile=TILE, halo=16, weights="torchscript", backend="torch")
    here, elsewhere = Resources(threads=1), Resources(threads=1, workers=2)
    expected = Model(unet_2d).predict_array(image, settings=settings, resources=here)
    done = Model(unet_2d).predict(image, tmp_path / "out.ome.zarr", settings=settings, resources=elsewhere)
    assert done.tiles > 4
    np.testing.assert_array_equal(open_image(done.output).to_numpy(), expected.to_numpy())
    # More threads may add in another order; that is rounding, and no more.
    more = Model(unet_2d).predict_array(image, settings=settings, resources=Resources(threads=2))
    np.testing.assert_allclose(more.to_numpy(), expected.to_numpy(), rtol=0, atol=1e-5)


def test_torchscript_gives_a_tile_the_same_bits_in_its_first_call_and_after_calls_of_other_sizes(
    unet_2d: Package,
) -> None:
    entry = unet_2d.weights_entry("torchscript")
    random = np.random.default_rng(0)
    tiles = [
        random.standard_normal((1, 1, *size), dtype=np.float32) for size in ((64, 64), (48, 64), (36, 40))
    ]

    def results(order: list[int]) -> dict[int, np.ndarray]:
        engine = open_engine(
            "torchscript", unet_2d.path(entry), root=unet_2d.root, backend="torch", threads=1
        )
        return {n: engine([tiles[n]])[0] for n in order}  # the last call of each counts

    first = results([0, 1, 2])
    for order in ([2, 1, 0], [1, 1, 1, 1, 0, 2, 0, 2]):
        for number, result in results(order).items():
            np.testing.assert_array_equal(result, first[number])


def test_the_memory_plan_counts_the_processes_of_the_executor(unet_2d: Package) -> None:
    image, settings = image_of((200, 150)), Settings(tile=TILE, halo=16)
    model = Model(unet_2d)
    one = model.plan(image, settings=settings)
    many = Resources(memory="64GB", executor=LocalProcesses(4))
    four = model.plan(image, settings=settings, resources=many)
    assert four.workers == 4
    assert four.memory.total > one.memory.total + 3 * one.memory.process


def test_a_model_opens_and_measures_its_network_once(
    unet_2d: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    import im2im_zoo.runtime.prepare as prepare

    calls = {"open_network": 0, "measure_overlap": 0}
    for name in calls:
        original = getattr(prepare, name)

        def counted(
            *args: object, name: str = name, original: object = original, **options: object
        ) -> object:
            calls[name] += 1
            return original(*args, **options)  # type: ignore[operator]

        monkeypatch.setattr(prepare, name, counted)
    model = Model(unet_2d)
    for side in (200, 200, 200):
        model.predict_array(image_of((side, side)), settings=Settings(tile=TILE))
    assert calls == {"open_network": 1, "measure_overlap": 1}
