"""Maps that do not fit the memory: the labels are those of the whole image, whatever the tiles and blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from groupings_for_tests import COMPONENTS, LITTLE, TINY, MakeGrouped, expected_labels

from im2im_zoo.images import open_image
from im2im_zoo.runtime import predict, predict_array
from im2im_zoo.runtime.execute.work_folder import work_folder


@pytest.mark.slow
@pytest.mark.parametrize("code", [COMPONENTS, COMPONENTS + "\n"])
def test_in_blocks_the_labels_are_those_of_the_whole_image_whatever_the_tiles(
    make_grouped: MakeGrouped, wide: xr.DataArray, tmp_path: Path, code: str
) -> None:
    package = make_grouped(code=code)
    options: dict[str, Any] = {"memory": LITTLE, "cost": TINY, "allow_code": True, "halo": 8}
    wanted = expected_labels(package, wide)
    for number, tile in enumerate((300, 610)):
        path = tmp_path / f"{number}.ome.zarr"
        done = predict(package, wide, path, tile={"y": tile, "x": tile}, **options)
        assert done.plan.grouping is not None
        assert done.plan.grouping.block is not None
        labels = open_image(path / "labels" / "instances")
        np.testing.assert_array_equal(labels, wanted)
        assert (done.objects, done.warnings, labels.dtype) == (wanted.max(), (), np.uint32)
        assert not work_folder(path).exists()
    inner = predict_array(package, wide, memory=LITTLE, cost=TINY, halo=8, allow_code=True)
    np.testing.assert_array_equal(inner, wanted)
    # The pyramid takes the nearest, as of any labels.
    levels = [zarr.open_array(path / "labels" / "instances" / str(n)) for n in range(3)]
    np.testing.assert_array_equal(levels[1], levels[0][::2, ::2])
    np.testing.assert_array_equal(levels[2], levels[0][::4, ::4])


@pytest.mark.slow
def test_in_blocks_each_time_point_is_grouped_apart_and_any_output_has_the_labels(
    make_grouped: MakeGrouped, wide: xr.DataArray, tmp_path: Path
) -> None:
    package, movie = make_grouped(), xr.concat([wide, wide.isel(y=slice(None, None, -1))], dim="time")
    frames = np.stack([expected_labels(package, frame) for frame in movie])
    for name in ("o.ome.zarr", "o.ome.tif"):
        done = predict(package, movie, tmp_path / name, memory=LITTLE, cost=TINY, halo=8)
        np.testing.assert_array_equal(open_image(done.labels), frames)  # type: ignore[arg-type]
        assert done.objects == sum(int(f.max()) for f in frames)
