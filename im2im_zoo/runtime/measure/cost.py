"""Measure the memory of a network from the peak memory of runs on two small tiles.

Linux reports the exact peak of a call (its high-water mark can be reset); elsewhere a thread samples the resident memory.
`plan.memory` projects the memory of a prediction from the result.
"""

import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.allocator import trim_memory
from im2im_zoo.engines import Engine
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout
from im2im_zoo.runtime.plan.memory import MIB, Cost

# Large enough that the activations of small networks exceed the noise of about a MiB, small enough that large networks
# take about a second.
_SMALL_VOXELS = 64 * 1024
_LARGE_VOXELS = 256 * 1024
_MANY_VOXELS = 2 * 1024**2
# The high-water mark does not count pages that a call reuses.
_SAFETY = 1.15


def measure_cost(engine: Engine, layout: Layout, *, budget: int | None = None) -> Cost:
    """Measure the memory of a network with two runs on noise.

    Args:
        engine: the network.
        layout: gives the sizes that the network takes, and those of the image, which no run exceeds.
        budget: bytes that the process may use; the larger run is skipped if it would exceed them.
    """
    tiled = layout.network_axes

    def run(shape: dict[str, int]) -> int:
        arrays = _noise(layout, shape)
        return peak_of(lambda: engine(arrays))

    # Memory that libraries set up once, in the first run, counts as the process's.
    run(_tile_shape(tiled, 0))
    shape = _tile_shape(tiled, _SMALL_VOXELS)
    voxels, peak = math.prod(shape.values()), run(shape)
    per_voxel, call, most = peak / voxels, 0.0, voxels
    # Two sizes give the constant part, which is negligible above some millions of voxels.
    shape = _tile_shape(tiled, max(_LARGE_VOXELS, 2 * voxels) if voxels < _MANY_VOXELS else voxels)
    larger = math.prod(shape.values())
    allowed = budget is None or resident_bytes() + 1.5 * per_voxel * larger < budget
    if larger > voxels and allowed:
        large_peak, most = run(shape), larger
        # A library may choose another algorithm for larger tiles: stay near the measured cost of the larger run.
        per_voxel = max((large_peak - peak) / (larger - voxels), 0.8 * large_peak / larger)
        call = max(0.0, large_peak - per_voxel * larger)
    # Memory that the runs have freed is not the process's.
    trim_memory()
    return Cost(resident_bytes(), int(call + 16 * MIB), _SAFETY * per_voxel, voxels=most)


def measure_larger(engine: Engine, layout: Layout, cost: Cost, voxels: int) -> Cost:
    """Update a measured cost with a run on a larger tile.

    A library may need more memory per voxel for a larger tile: OpenVINO was measured to need 82 bytes per voxel of
    64 x 128 x 128, 122 of 64 x 512 x 512 and 143 of 64 x 1024 x 1024 voxels, with one network.

    Args:
        engine: the network.
        layout: as for `measure_cost`.
        cost: from smaller tiles.
        voxels: approximate number of voxels of the larger tile.
    """
    shape = _tile_shape(layout.network_axes, voxels)
    arrays, found = _noise(layout, shape), math.prod(shape.values())
    peak = peak_of(lambda: engine(arrays))
    per_voxel = max(cost.per_voxel, _SAFETY * (peak - cost.call) / found)
    return replace(cost, per_voxel=per_voxel, voxels=max(voxels, found))


def peak_of(call: Callable[[], object]) -> int:
    """Return the peak increase of the process's resident memory during a call, in bytes.

    Freed memory is first returned to the system where possible (glibc), as reusing it would hide a part of the peak.
    """
    trim_memory()
    before = resident_bytes()
    if _reset_high_water():
        call()
        return max(0, _high_water() - before)
    return _sampled_peak(call) - before


def restart_peak() -> None:
    """Reset the peak of `peak_bytes`, where the system supports it."""
    _reset_high_water()


def peak_bytes() -> int:
    """Return the peak resident memory since `restart_peak`, in bytes; since the process started where it cannot be reset."""
    if Path("/proc/self/status").is_file():
        # Not ru_maxrss, which a process inherits from its parent.
        return _high_water()
    try:
        import resource
    except ImportError:  # Windows
        return resident_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _reset_high_water() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_bytes()


def _sampled_peak(call: Callable[[], object]) -> int:
    peak, done = resident_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        call()
        return max(peak, resident_bytes())
    finally:
        done.set()
        thread.join()


def _tile_shape(axes: Sequence[AxisMap], voxels: int) -> dict[str, int]:
    """Return the smallest tile with at least `voxels` voxels, or the whole padded image if it has fewer.

    An axis that is never cut has the size of the image.
    """
    shape, most, grids = {}, {}, {}
    for m in axes:
        if m.grid is None:
            continue
        grids[m.name], whole = m.grid, m.grid.at_least(m.size + 2 * m.crop)
        most[m.name] = m.grid.minimum if m.grid.fixed else whole
        shape[m.name] = m.grid.minimum if m.role == "tile" else most[m.name]
    while math.prod(shape.values()) < voxels:
        growing = [a for a in shape if shape[a] < most[a]]
        if not growing:
            break
        least = min(growing, key=lambda a: shape[a])
        shape[least] = min(most[least], grids[least].at_least(max(2 * shape[least], shape[least] + 1)))
    return shape


def _noise(layout: Layout, shape: Mapping[str, int]) -> list[NDArray[np.float32] | None]:
    """Return an array of noise for each given input."""
    random = np.random.default_rng(0)
    ports = {m.name: m.network.inputs for m in layout.network_axes if m.network is not None}
    arrays: list[NDArray[np.float32] | None] = []
    for number, source in enumerate(layout.inputs):
        if not source.given:
            arrays.append(None)
            continue
        sizes = []
        for axis in source.axes:
            port = ports[axis][number] if axis in ports else None
            sizes.append(1 if axis == "batch" else port.size(shape[axis]) if port else source.sizes[axis])
        arrays.append(random.standard_normal(sizes, dtype=np.float32))
    return arrays
