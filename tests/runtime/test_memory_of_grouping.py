"""The promise of the plan holds while maps are grouped: the real peak of the process stays below what was projected."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import maps_package, with_grouping

from im2im_zoo.images import write_image

MIB = 1024**2
SCRIPT = textwrap.dedent(
    """
    import json, sys
    from im2im_zoo.runtime import predict
    package, image, output, memory = sys.argv[1:]
    result = predict(package, image, output, memory=int(memory), threads=1, halo="declared")
    plan = result.plan
    found = {"peak": result.peak_bytes, "objects": result.objects, "in_blocks": plan.grouping.block is not None}
    print(json.dumps(found | plan.memory.to_json()))
    """
)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "memory"), [(-0.58, 1800), (-10.0, 1800), (-10.0, 1100)])
def test_the_peak_stays_below_the_projection_while_maps_are_grouped(
    tmp_path: Path, nuclei_2d: tuple[np.ndarray, np.ndarray], threshold: float, memory: int
) -> None:
    package = with_grouping(maps_package(tmp_path / "p"), kwargs={"channel": 1, "threshold": threshold})
    values = xr.DataArray(np.tile(nuclei_2d[0], (8, 8)), dims=("y", "x"))
    image = write_image(values, tmp_path / "image.ome.zarr")
    arguments = (package.root, image, tmp_path / "o.ome.zarr", memory * MIB)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["grouping"] > 0.2 * found["total"], "the tiles are what counts here"
    assert found["in_blocks"] == (memory == 1100)
    assert found["peak"] <= found["total"] <= memory * MIB
    assert found["peak"] > found["total"] / 3
    assert found["objects"] > 0
