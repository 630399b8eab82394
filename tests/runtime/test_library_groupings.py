"""Packages whose output StarDist or Cellpose groups: maps in tiles, then the library's labels, as it makes them of the whole."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from blocks_for_tests import PLENTY, in_blocks
from groupings_for_tests import TINY
from metrics_for_tests import average_precision
from packages_for_tests import build_model, follows, output_axis, tensor_axis, tensor_in, tensor_out
from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.images import open_image
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.order import renumber
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.runtime import predict, predict_array, predict_arrays


def library(name: str) -> Callable[[Any], Any]:
    """Marks a test slow, as `make slow` installs StarDist, and skips it where an extra is not installed."""
    lost = importlib.util.find_spec(name) is None
    skipped = pytest.mark.skipif(lost, reason=f"{name} is not installed: pip install 'im2im_zoo[{name}]'")
    return lambda test: pytest.mark.slow(skipped(test))


stardist, cellpose = library("stardist"), library("cellpose")
RAYS = 16


class OnGrid(nn.Module):
    """Gives each of its input's channels, at every n-th voxel along each axis."""

    def __init__(self, channels: int, ndim: int, grid: int | tuple[int, ...]) -> None:
        super().__init__()
        make = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.conv = make(channels, channels, 3, padding=1, groups=channels, bias=False, stride=grid)
        with torch.no_grad():
            self.conv.weight.zero_()[(slice(None), 0, *(1,) * ndim)] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def star(ndim: int = 2, grid: int | tuple[int, ...] = 1, **more: Any) -> Any:
    sides = (grid,) * ndim if isinstance(grid, int) else grid
    kwargs = {"prob_threshold": 0.4, "nms_threshold": 0.3, "n_rays": RAYS, "grid": sides, "b": 1}
    kwargs |= {"anisotropy": (1.0,) * 3} if ndim == 3 else {}
    made = spec.StardistPostprocessingKwargs2D if ndim == 2 else spec.StardistPostprocessingKwargs3D
    return spec.StardistPostprocessingDescr(id="stardist_postprocessing", kwargs=made(**kwargs | more))


def flow(**more: Any) -> Any:
    kwargs = {"cellprob_threshold": 0.0, "flow_threshold": 0.4, "do_3D": False, "min_size": 15} | more
    return spec.CellposeFlowDynamicsDescr(
        id="cellpose_flow_dynamics", kwargs=spec.CellposeFlowDynamicsKwargs(**kwargs)
    )


def package(
    folder: Path,
    channels: int,
    operations: Sequence[Any],
    ndim: int = 2,
    grid: int | tuple[int, ...] = 1,
    **more: Any,
) -> Package:
    """A package that passes the maps in its input on, described by its labels as the format wants it."""
    space = ("z", "y", "x")[-ndim:]
    names = [f"map{n}" for n in range(channels)]
    step = (8, 8) if ndim == 2 else (8, 4)
    inputs = [tensor_axis("batch"), tensor_axis("channel", names), *(tensor_axis(a, step) for a in space)]
    outputs = [output_axis("batch"), output_axis("channel", ["labels"])]
    outputs += [output_axis(a, follows("raw", a), halo=2) for a in space]
    return open_package(
        build_model(
            folder / "package",
            OnGrid(channels, ndim, grid),
            [tensor_in("raw", inputs)],
            [tensor_out("labels", outputs, dtype="uint16", postprocessing=list(operations), **more)],
        )
    )


def spheres(shape: Sequence[int], radius: int, apart: int) -> np.ndarray:
    """Balls on a lattice, which touch neither each other nor the border."""
    labels, at = np.zeros(shape, np.int32), np.indices(shape)
    centres = np.stack(
        np.meshgrid(*(np.arange(apart // 2 + 1, n - radius - 2, apart) for n in shape), indexing="ij"), -1
    )
    for number, centre in enumerate(centres.reshape(-1, len(shape)), 1):
        far = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))
        labels[far <= radius**2] = number
    return labels


def star_maps(labels: np.ndarray) -> xr.DataArray:
    from stardist import Rays_GoldenSpiral, edt_prob, star_dist, star_dist3D

    far = star_dist(labels, RAYS) if labels.ndim == 2 else star_dist3D(labels, Rays_GoldenSpiral(RAYS))
    # No two voxels are equally sure: which of such comes first StarDist leaves open.
    sure = edt_prob(labels) * np.random.default_rng(0).uniform(0.98, 1, labels.shape)
    maps = np.concatenate([sure[None], np.moveaxis(far, -1, 0)])
    return image_of(maps.astype(np.float32))


def flow_maps(labels: np.ndarray) -> xr.DataArray:
    """Five times the direction to each object's centre, and how sure it is that there is one."""
    at = np.indices(labels.shape).astype(float)
    maps = np.zeros((labels.ndim + 1, *labels.shape))
    maps[-1] = -5
    for number in range(1, labels.max() + 1):
        inside = labels == number
        way = np.stack([a[inside].mean() - a[inside] for a in at])
        maps[:-1, inside] = 5 * way / np.maximum(np.linalg.norm(way, axis=0), 1)
        maps[-1, inside] = 5
    return image_of(maps.astype(np.float32))


def image_of(maps: np.ndarray) -> xr.DataArray:
    space = ("z", "y", "x")[-(maps.ndim - 1) :]
    return xr.DataArray(maps, dims=("channel", *space), attrs={"pixel_size_um": dict.fromkeys(space, 0.5)})


@stardist
def test_labels_of_a_coarse_grid_have_the_images_voxels_and_are_the_librarys(tmp_path: Path) -> None:
    from stardist import non_maximum_suppression, polygons_to_label

    truth = spheres((97, 121), 7, 20)
    maps = star_maps(truth)
    predict(
        package(tmp_path, RAYS + 1, [star(grid=2)], grid=2),
        maps,
        tmp_path / "o.ome.zarr",
        tile={"y": 48, "x": 48},
        halo=4,
    )
    labels = open_image(tmp_path / "o.ome.zarr" / "labels" / "instances")
    coarse = maps.to_numpy()[:, ::2, ::2]
    points, sure, far = non_maximum_suppression(
        np.moveaxis(coarse[1:], 0, -1), coarse[0], grid=(2, 2), b=1, prob_thresh=0.4, nms_thresh=0.3
    )
    theirs = polygons_to_label(far, points, prob=sure, shape=truth.shape)
    np.testing.assert_array_equal(labels, renumber(theirs))
    assert (labels.shape, labels.attrs["pixel_size_um"]) == (truth.shape, {"y": 0.5, "x": 0.5})
    written = open_image(tmp_path / "o.ome.zarr")
    assert (written.shape, written.attrs["pixel_size_um"]) == ((RAYS + 1, 49, 61), {"y": 1.0, "x": 1.0})
    assert average_precision(labels.to_numpy(), truth, [0.5])[0.5] == 1


@stardist
def test_labels_in_memory_have_the_images_pixel_size(tmp_path: Path) -> None:
    maps = star_maps(spheres((65, 64), 7, 20))
    results = predict_arrays(package(tmp_path, RAYS + 1, [star(grid=2)], grid=2), maps)
    assert results["instances"].attrs["pixel_size_um"] == {"y": 0.5, "x": 0.5}
    assert (results["instances"].shape, results["labels"].shape) == ((65, 64), (RAYS + 1, 33, 32))


@stardist
def test_polyhedra_of_tiles_are_those_of_the_whole(tmp_path: Path) -> None:
    truth = spheres((22, 42, 44), 6, 18)
    maps = star_maps(truth)
    opened = package(tmp_path, RAYS + 1, [star(ndim=3)], ndim=3)
    whole = predict_array(opened, maps, whole=True)
    tiles = predict_array(opened, maps, tile={"z": 12, "y": 20, "x": 20}, halo=2)
    np.testing.assert_array_equal(tiles, whole)
    assert average_precision(tiles.to_numpy(), truth, [0.5])[0.5] == 1


@stardist
@pytest.mark.parametrize("ndim", [2, 3])
def test_no_candidate_makes_no_object(tmp_path: Path, ndim: int) -> None:
    empty = image_of(np.zeros((RAYS + 1, *(16,) * ndim), np.float32))
    labels = predict_array(package(tmp_path, RAYS + 1, [star(ndim=ndim)], ndim=ndim), empty)
    assert not labels.any()


def crowd(shape: Sequence[int], radius: int, count: int) -> np.ndarray:
    """Balls of many sizes that touch each other and the border."""
    random, labels, at = np.random.default_rng(0), np.zeros(shape, np.int32), np.indices(shape)
    for number in range(1, count + 1):
        centre, size = [random.uniform(0, n) for n in shape], random.uniform(0.6, 1) * radius
        far = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))
        labels[(far <= size**2) & (labels == 0)] = number
    return labels


@stardist
@pytest.mark.parametrize(
    ("grid", "shape", "block"),
    [
        ((1, 1), (150, 170), (64, 40)),
        ((2, 2), (151, 170), (64, 41)),
        ((4, 2), (150, 171), (50, 64)),
        ((1, 2, 2), (20, 50, 56), (20, 22, 28)),
    ],
)
def test_objects_of_blocks_on_any_grid_are_those_of_the_whole(
    tmp_path: Path, grid: tuple[int, ...], shape: tuple[int, ...], block: tuple[int, ...]
) -> None:
    ndim = len(shape)
    maps = star_maps(crowd(shape, 9, 60) if ndim == 2 else spheres(shape, 7, 17))
    coarse = maps[(slice(None), *(slice(None, None, g) for g in grid))]
    grouping = package(tmp_path / "p", RAYS + 1, [star(ndim=ndim, grid=grid)], ndim=ndim, grid=grid).grouping
    assert grouping is not None
    code = Code(grouping, tmp_path, allow_code=False)
    found = []
    for sides, folder in ((shape, "whole"), (block, "blocks")):
        sample = Sample(coarse, maps.dims[1:], BlockGrid(shape, sides), tmp_path / folder, code, PLENTY, 100)
        found.append(in_blocks(sample))
    (whole, objects, _), (labels, again, warnings) = found
    if ndim == 2:
        np.testing.assert_array_equal(labels, whole)
    # Polyhedra are drawn in float32, at other places in blocks.
    assert average_precision(labels, whole, [0.99])[0.99] == 1
    assert (again, warnings) == (objects, [])
    assert objects > 5
    np.testing.assert_array_equal(whole, renumber(code.load()(coarse.to_numpy()))[tuple(map(slice, shape))])


@stardist
def test_the_memory_says_whether_a_coarse_grid_is_grouped_in_blocks(tmp_path: Path) -> None:
    maps = star_maps(np.tile(crowd((151, 170), 9, 60), (8, 7)))
    opened = package(tmp_path, RAYS + 1, [star(grid=2)], grid=2)
    whole = predict(opened, maps, tmp_path / "whole.ome.zarr", cost=TINY, memory=2**40, halo=4)
    little = whole.plan.memory.of_grouping - 1
    done = predict(opened, maps, tmp_path / "blocks.ome.zarr", cost=TINY, memory=little, halo=4)
    assert whole.plan.grouping.block is None  # type: ignore[union-attr]
    assert done.plan.grouping.block is not None  # type: ignore[union-attr]
    assert done.plan.memory.of_grouping <= little
    assert (done.objects, done.warnings) == (whole.objects, whole.warnings)
    np.testing.assert_array_equal(open_image(done.labels), open_image(whole.labels))  # type: ignore[arg-type]


@cellpose
def test_flows_of_tiles_lead_to_the_objects(tmp_path: Path) -> None:
    truth = spheres((100, 90), 8, 19)
    opened = package(tmp_path, 3, [flow()])
    labels = predict_array(opened, flow_maps(truth), tile={"y": 40, "x": 40}, halo=2)
    np.testing.assert_array_equal(labels, predict_array(opened, flow_maps(truth), whole=True))
    assert average_precision(labels.to_numpy(), truth, [0.9])[0.9] == 1
    assert labels.dtype == np.uint32


@cellpose
def test_no_cell_makes_no_object(tmp_path: Path) -> None:
    empty = image_of(np.full((3, 32, 32), -5, np.float32))
    assert not predict_array(package(tmp_path, 3, [flow()]), empty).any()


@stardist
def test_validation_compares_the_labels_with_the_test_tensor(tmp_path: Path) -> None:
    maps = star_maps(spheres((48, 48), 7, 20)).to_numpy()
    np.save(tmp_path / "in.npy", maps[None])
    opened = package(tmp_path, RAYS + 1, [star(grid=2)], grid=2)
    labels = predict_array(opened, image_of(maps)).to_numpy().astype(np.uint16)
    assert _tested(opened, maps, labels).measured["grouping"] == {"objects_in_test_output": 4}
    wrong = _tested(opened, maps, np.where(labels == 2, 0, labels).astype(np.uint16))
    assert [f.code for f in wrong.findings if f.severity == "error"] == ["test_output"]


def _tested(opened: Package, maps: np.ndarray, labels: np.ndarray) -> Any:
    """What validation says of the package, with test tensors."""
    import yaml

    np.save(opened.root / "in.npy", maps[None])
    np.save(opened.root / "out.npy", labels[None, None])
    rdf = yaml.safe_load((opened.root / "rdf.yaml").read_text())
    rdf["inputs"][0]["test_tensor"] = {"source": "in.npy"}
    rdf["outputs"][0]["test_tensor"] = {"source": "out.npy"}
    (opened.root / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return validate_package(opened.root)


@stardist
def test_a_package_that_stardist_exported_is_grouped_by_its_thresholds(tmp_path: Path) -> None:
    import yaml

    truth = spheres((66, 81), 7, 20)
    maps = star_maps(truth)
    named = package(tmp_path / "a", RAYS + 1, [star(grid=2, b=2)], grid=2)
    names = [f"map{n}" for n in range(RAYS + 1)]
    space = [output_axis(a, follows("raw", a), scale=2.0, halo=2) for a in ("y", "x")]
    opened = build_model(
        tmp_path / "b",
        OnGrid(RAYS + 1, 2, 2),
        [
            tensor_in(
                "raw",
                [
                    tensor_axis("batch"),
                    tensor_axis("channel", names),
                    *(tensor_axis(a, (16, 4)) for a in "yx"),
                ],
            )
        ],
        [tensor_out("maps", [output_axis("batch"), output_axis("channel", names), *space])],
    )
    rdf = yaml.safe_load((opened / "rdf.yaml").read_text())
    rdf["config"] = {
        "stardist": {"config": {"n_rays": RAYS, "grid": [2, 2]}, "thresholds": {"prob": 0.4, "nms": 0.3}}
    }
    (opened / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    labels = predict_array(open_package(opened), maps)
    np.testing.assert_array_equal(labels, predict_array(named, maps))
    assert (labels.shape, labels.to_numpy().max()) == (truth.shape, truth.max())


@cellpose
def test_volumes_of_flows_lead_to_the_objects(tmp_path: Path) -> None:
    truth = spheres((24, 44, 44), 7, 20)
    maps = flow_maps(truth)
    labels = predict_array(package(tmp_path, 4, [flow(do_3D=True)], ndim=3), maps)
    assert average_precision(labels.to_numpy(), truth, [0.8])[0.8] == 1


def test_the_extra_that_is_missing_is_named_and_the_maps_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stardist", None)  # as where it is not installed
    opened = package(tmp_path, RAYS + 1, [star(grid=2)], grid=2)
    image = image_of(np.zeros((RAYS + 1, 21, 24), np.float32))
    with pytest.raises(PackageError, match=r"pip install 'im2im_zoo\[stardist\]', or write only the maps"):
        predict(opened, image, tmp_path / "o.ome.zarr")
    assert not (tmp_path / "o.ome.zarr").exists()
    assert predict_array(opened, image, group=False).shape == (RAYS + 1, 11, 12)


def test_what_a_library_cannot_group_is_refused_when_the_package_is_opened(tmp_path: Path) -> None:
    sigmoid = spec.SigmoidDescr(id="sigmoid")
    with pytest.raises(PackageError, match="followed by sigmoid"):
        package(tmp_path / "a", 3, [flow(), sigmoid])
    with pytest.raises(PackageError, match="set do_3D only for volumes"):
        package(tmp_path / "b", 3, [flow(do_3D=True)])
    with pytest.raises(PackageError, match=r"grid \(1, 1, 1\) must have one value for each axis of y, x"):
        package(tmp_path / "c", RAYS + 1, [star(ndim=3)])
