"""Plans: what they say, what they refuse, and that they read nothing."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import parse_size
from im2im_zoo.images.lazy import lazy_image
from im2im_zoo.package import open_package
from im2im_zoo.runtime import plan_prediction
from im2im_zoo.runtime.plan.memory import Cost, project

GIB = 1024**3
COST = Cost(process=300 * 1024**2, call=0, per_voxel=2000.0)


class Unreadable:
    """An image of which no voxel may be read."""

    path = "nowhere"
    dtype = np.dtype(np.uint16)

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def read(self, key: object) -> np.ndarray:
        raise AssertionError("a plan must not read the image")


def unreadable(dims: tuple[str, ...], *shape: int) -> xr.DataArray:
    return lazy_image(Unreadable(*shape), dims)


def test_a_plan_reads_nothing_and_covers_the_output_once(unet_2d):
    image = unreadable(("time", "y", "x"), 3, 1001, 777)
    plan = plan_prediction(unet_2d, image, cost=COST, memory=GIB)
    assert len(plan) > 3
    output = plan.outputs[0]
    covered = np.zeros(output.image_shape, np.uint8)
    for tile in plan:
        covered[tuple(plan.writes(tile, 0)[a] for a in output.image_axes)] += 1
        assert tile.index // plan.tiles_per_sample == tile.position["time"]
    assert (covered == 1).all()


def test_a_plan_is_plain_data_and_says_what_it_does(unet_2d):
    plan = plan_prediction(unet_2d, unreadable(("time", "y", "x"), 2, 300, 400), cost=COST, memory=GIB)
    plain = json.loads(json.dumps(plan.to_json(tiles=True)))
    assert len(plain["list"]) == plain["tiles"] == len(plan)
    assert plain["list"][0]["reads"]["raw"].keys() == {"channel", "y", "x"}
    text = str(plan)
    for said in ("time", "loop", "onnx", "halo 16", "declared", "float32", "GiB allowed"):
        assert said in text


def test_more_memory_makes_fewer_tiles_and_never_more_than_is_allowed(unet_2d):
    image = unreadable(("y", "x"), 5000, 4000)
    plans = [plan_prediction(unet_2d, image, cost=COST, memory=m * GIB // 2) for m in (2, 4, 8, 200)]
    counts = [len(p) for p in plans]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert all(p.memory.total <= p.budget for p in plans)
    assert all(p.overhead >= 1 for p in plans)
    assert plans[-1].overhead == pytest.approx(1)


def test_a_budget_that_no_tile_fits_is_refused_with_the_least_that_does(unet_2d):
    image = unreadable(("y", "x"), 500, 400)
    with pytest.raises(PlanError, match="pass --memory") as error:
        plan_prediction(unet_2d, image, cost=COST, memory=1000)
    least = parse_size(str(error.value).split("--memory ")[1].split()[0])
    assert plan_prediction(unet_2d, image, cost=COST, memory=least)
    with pytest.raises(PlanError):
        plan_prediction(unet_2d, image, cost=COST, memory=int(0.98 * least))


def test_a_given_tile_that_takes_too_much_is_refused(unet_2d):
    with pytest.raises(PlanError, match="smaller --tile"):
        plan_prediction(
            unet_2d, unreadable(("y", "x"), 9000, 9000), cost=COST, memory=GIB, tile={"y": 8000, "x": 8000}
        )


def test_the_projection_grows_with_all_that_takes_memory():
    base = {"tile_voxels": 10**6, "in_values": 1, "out_values": 1}
    total = project(COST, **base).total
    for change in (
        {"tile_voxels": 2 * 10**6},
        {"out_values": 50},
        {"whole_bytes": 10**9},
        {"chunk_bytes": 2**26, "decoding_bytes": 2**28},
        {"workers": 2},
    ):
        assert project(COST, **{**base, **change}).total > total


def test_one_plane_is_no_volume(unet_3d):
    plane = xr.DataArray(np.zeros((2, 1, 60, 60), np.float32), dims=("channel", "z", "y", "x"))
    with pytest.raises(PlanError, match="the image has only one plane along z"):
        plan_prediction(unet_3d, plane)


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        (("channel", "y", "x"), (3, 90, 90), r"takes 1 channel \(nuclei\), but the image has 3"),
        (("y",), (90,), "needs at least 36 voxels along x, but the image has no x"),
        (("y", "x"), (0, 50), "no voxels"),
        (("y", "x", "wavelength"), (50, 50, 2), "wavelength is unknown"),
    ],
)
def test_an_image_that_the_model_does_not_take_is_refused(unet_2d, dims, shape, message):
    with pytest.raises(PlanError, match=message):
        plan_prediction(unet_2d, unreadable(dims, *shape), cost=COST, memory=GIB)


def test_channels_are_listed_where_they_do_not_match(unet_3d):
    image = unreadable(("channel", "z", "y", "x"), 3, 20, 40, 40).assign_coords(channel=["a", "b", "c"])
    with pytest.raises(
        PlanError, match=r"takes 2 channels \(dna, membrane\), but the image has 3 \(a, b, c\)"
    ):
        plan_prediction(unet_3d, image, cost=COST, memory=GIB)
    with pytest.raises(
        PlanError, match=r"but the image has 1 \(a\); add the files of the others with --join"
    ):
        plan_prediction(unet_3d, image.isel(channel=[0]), cost=COST, memory=GIB)
    with pytest.raises(PlanError, match="no channel axis"):
        plan_prediction(unet_3d, image.isel(channel=0), cost=COST, memory=GIB)


def test_a_plane_for_a_3d_model_is_refused_unless_the_model_takes_one(unet_3d, folder):
    plane = unreadable(("channel", "y", "x"), 2, 40, 40)
    with pytest.raises(PlanError, match="needs at least 18 voxels along z, but the image has no z"):
        plan_prediction(unet_3d, plane, cost=COST, memory=GIB)
    path = build_package(
        folder / "one_plane",
        small_unet(ndim=3, levels=1, channels=2),
        axes=("batch", "channel", "z", "y", "x"),
        channels=("a", "b"),
        minimum={"z": 1, "y": 20, "x": 20},
        step={"z": 1, "y": 2, "x": 2},
        halo={"z": 0, "y": 8, "x": 8},
    )
    plan = plan_prediction(open_package(path), plane, cost=COST, memory=GIB)
    assert plan.outputs[0].image_axes == ("channel", "y", "x")
    assert "one plane is added" in str(plan)


def test_seams_are_warned_of_where_no_halo_is_declared(folder):
    package = open_package(build_package(folder / "haloless", small_unet(levels=1), halo=0, minimum=20))
    image = unreadable(("y", "x"), 100, 100)
    assert plan_prediction(package, image, cost=COST, memory=GIB).warnings == ()
    tiled = plan_prediction(package, image, cost=COST, memory=GIB, tile={"y": 40, "x": 40})
    assert "seams" in tiled.warnings[0]
    given = plan_prediction(package, image, cost=COST, memory=GIB, tile={"y": 40, "x": 40}, halo=8)
    assert given.warnings == ()
    assert given.halo_source == "given"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": {"z": 40}}, "cannot cut along z; use y, x"),
        ({"tile": {"y": 41}}, r"tile along y: .* such as 40 or 44"),
        ({"tile": {"y": 36}, "halo": 20}, "use at least 44"),
        ({"halo": -1}, "0 or more"),
        ({"halo": {"t": 4}}, "for the axes y, x"),
        ({"weights": "pytorch_state_dict"}, "use one of onnx, torchscript"),
    ],
)
def test_arguments_that_cannot_be_are_refused(unet_2d, arguments, message):
    with pytest.raises(PlanError, match=message):
        plan_prediction(unet_2d, unreadable(("y", "x"), 100, 100), cost=COST, memory=GIB, **arguments)


def test_planning_a_terabyte_takes_a_moment(unet_3d):
    import time

    image = unreadable(("time", "channel", "z", "y", "x"), 100, 2, 2000, 20_000, 20_000)
    start = time.process_time()
    plan = plan_prediction(unet_3d, image, cost=COST, memory=4 * GIB)
    last = plan.tile(len(plan) - 1)
    assert plan.writes(last, 0)["x"].stop == 20_000
    assert len(plan) == 100 * plan.tiles_per_sample == 100 * math.prod(len(a.spans) for a in plan.axes)
    assert time.process_time() - start < 20
