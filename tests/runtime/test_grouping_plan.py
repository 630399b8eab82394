"""What the plan says of grouping, and the blocks that a memory leaves for it."""

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import MakeGrouped

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import parse_size
from im2im_zoo.runtime import plan_prediction
from im2im_zoo.runtime.plan.memory import Cost

MIB = 1024**2
COST = Cost(300 * MIB, 10 * MIB, 100.0)


def test_the_plan_says_how_it_is_grouped_and_what_memory_that_takes(
    make_grouped: MakeGrouped, movie: xr.DataArray
) -> None:
    package = make_grouped()
    plan = plan_prediction(package, movie, cost=COST)
    assert (
        "instance segmentation by components.py, the whole image at once, 3 times: group(channel=1, threshold=-0.58, min_size=3)"
        in str(plan)
    )
    assert "labels instances: time 3, y 130, x 150, uint32; this step needs" in str(plan)
    assert plan.to_json()["grouping"]["labels"] == "instances"
    # At least the maps and labels of one time point.
    assert plan.memory.grouping >= 130 * 150 * (2 * 4 + 4)
    without = plan_prediction(package, movie, cost=COST, group=False)
    assert without.grouping is None
    assert "group" not in str(without)


def test_maps_that_do_not_fit_the_memory_are_grouped_in_blocks_that_do(make_grouped: MakeGrouped) -> None:
    package = make_grouped()
    large = xr.DataArray(np.broadcast_to(np.uint8(0), (8000, 8000)), dims=("y", "x"))
    whole = plan_prediction(package, large, cost=COST, memory=2**40)
    assert whole.grouping is not None
    assert whole.grouping.block is None
    blocks = []
    for memory in (whole.memory.of_grouping - 1, whole.memory.of_grouping // 2, 900 * MIB, 660 * MIB):
        plan = plan_prediction(package, large, cost=COST, memory=memory)
        assert plan.memory.total <= memory
        assert plan.grouping is not None
        assert plan.grouping.block is not None
        assert all(side % plan.grouping.chunk == 0 for side in plan.grouping.block)
        assert plan.grouping.block_bytes <= plan.grouping.bytes
        blocks.append(plan.grouping.block)
    assert blocks == sorted(blocks, reverse=True)
    assert blocks[-1] < blocks[0]
    assert "instance segmentation by components.py, in blocks of" in str(plan)
    shared = plan_prediction(package, large, cost=COST, memory=3000 * MIB, workers=3)
    assert shared.grouping is not None
    assert shared.grouping.block is not None
    assert 3 * shared.grouping.bytes < 3000 * MIB
    assert shared.memory.of_grouping <= 3000 * MIB


def test_a_memory_too_small_for_any_block_is_refused_before_anything_is_computed(
    make_grouped: MakeGrouped,
) -> None:
    package = make_grouped()
    large = xr.DataArray(np.broadcast_to(np.uint8(0), (8000, 8000)), dims=("y", "x"))
    with pytest.raises(
        PlanError,
        match=r"not enough for instance segmentation.* a block .* pass --memory [\d.]+[MG]B .*--no-grouping",
    ) as refused:
        plan_prediction(package, large, cost=COST, memory=400 * MIB)
    least = parse_size(str(refused.value).split("--memory ")[1].split()[0])
    # What then does not fit is the statistics that are taken before the tiles.
    with pytest.raises(PlanError, match="the smallest tile"):
        plan_prediction(package, large, cost=COST, memory=least)
