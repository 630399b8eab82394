"""Grouping of large maps into instances, block by block, beside what others do: `python benchmarks/instances.py`. Prints a table.

Objects are discs of 15 to 25 pixels across on a jittered lattice, 100,000 of them in 20,000 x 20,000 pixels; the maps are made by
a program, so that what is timed is grouping alone: from maps in an OME-Zarr to labels in one. Each row is a process of its
own. scipy and scikit-image have the whole image in memory; dask-image is left out where it is not installed. See README.md.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from numpy.typing import NDArray

_BLOCK = 2000


def lattice(side: int, objects: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Centres (y, x) and radii of the discs, by row and column of the lattice, and its step."""
    rows = round(objects**0.5)
    step = side / rows
    random = np.random.default_rng(0)
    centres = (np.indices((rows, rows)) + 0.5) * step + random.uniform(-0.3, 0.3, (2, rows, rows)) * step
    return centres.astype(np.float32), random.uniform(7.5, 12.5, (rows, rows)).astype(np.float32), step


def make(folder: Path, side: int, objects: int) -> None:
    """Write the maps: of the inside, and of EmbedSeg."""
    from im2im_zoo.images import create_image

    centres, radii, step = lattice(side, objects)
    rows = len(radii)
    common: dict[str, Any] = {"axes": "cyx", "dtype": "float32", "chunks": (1, _BLOCK // 2, _BLOCK // 2)}
    inside = create_image(folder / "inside.ome.zarr", shape=(1, side, side), **common)
    embedding = create_image(folder / "embedding.ome.zarr", shape=(5, side, side), **common)
    with inside, embedding:
        for top in range(0, side, _BLOCK):
            for left in range(0, side, _BLOCK):
                region = {
                    "y": slice(top, min(top + _BLOCK, side)),
                    "x": slice(left, min(left + _BLOCK, side)),
                }
                y = np.arange(region["y"].start, region["y"].stop, dtype=np.float32)[:, None]
                x = np.arange(region["x"].start, region["x"].stop, dtype=np.float32)[None]
                maps = np.zeros((5, y.size, x.size), np.float32)
                at = (y // step).astype(int).clip(0, rows - 1), (x // step).astype(int).clip(0, rows - 1)
                offsets = centres[0][at] - y, centres[1][at] - x
                distance = np.hypot(*offsets) / radii[at]
                maps[0], maps[1] = offsets
                maps[2:4] = radii[at] / 1.5
                maps[4] = np.clip(1.1 - 0.5 * distance, 0, 1) * (distance < 1)
                embedding.write(region, maps)
                inside.write(region, (distance[None] < 1).astype(np.float32))


def ours(folder: Path, method: str, memory: int, workers: int) -> int:
    """Blocks as a prediction within that memory has them; the number of objects."""
    import hashlib
    import shutil

    from im2im_zoo.core.allocator import set_up_memory
    from im2im_zoo.images import create_image, open_image
    from im2im_zoo.instances.blockwise import group_in_blocks
    from im2im_zoo.instances.blockwise.grid import BlockGrid
    from im2im_zoo.instances.blockwise.sample import Code, Sample
    from im2im_zoo.instances.blockwise.steps import StepRunner
    from im2im_zoo.instances.grouping import Grouping
    from im2im_zoo.instances.label_image import LabelImage
    from im2im_zoo.instances.methods import components, embedseg
    from im2im_zoo.runtime.execute.executors import executor_for
    from im2im_zoo.runtime.settings import Resources

    set_up_memory()
    name, module = {"components": ("inside", components), "embedseg": ("embedding", embedseg)}[method]
    code = Path(inspect.getfile(module))
    digest = hashlib.sha256(code.read_bytes()).hexdigest()
    maps = open_image(folder / f"{name}.ome.zarr")
    shape = (maps.sizes["y"], maps.sizes["x"])
    # As `GroupPlan` counts it, and half of a GiB for the process.
    each = 3 * 4 * maps.sizes["channel"] + 6 * 4 + 6 * 8
    room = (memory - 512 * 2**20 * (1 + (workers > 1) * workers)) // workers
    side = max(1024, int((max(room, 0) / each) ** 0.5) // 1024 * 1024)
    axes, work = ("y", "x"), folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    sample = Sample(
        maps, axes, BlockGrid(shape, (side, side)), work, Code(Grouping(code.name, digest, "group", "maps", {}), code.parent, False), room, each
    )  # fmt: skip
    path = folder / f"{method}.ome.zarr"
    with create_image(
        path, axes=axes, shape=shape, dtype="uint32", chunks=(1024, 1024), labels=True, overwrite=True
    ) as writer:
        sink = writer.part() if workers > 1 else writer
        target = LabelImage(sink, axes, shape, "uint32", axes, {}, "the benchmark")
        objects, _ = group_in_blocks(sample, target, StepRunner(executor_for(Resources(workers=workers))))
    shutil.rmtree(work)
    return objects


def whole(folder: Path, name: str, group: Callable[[NDArray[Any]], NDArray[Any]]) -> int:
    """All in memory: read, group, write."""
    from im2im_zoo.images import create_image, open_image

    labels = group(open_image(folder / f"{name}.ome.zarr").to_numpy())
    with create_image(
        folder / "whole.ome.zarr", axes="yx", shape=labels.shape, dtype="uint32", labels=True, overwrite=True
    ) as writer:
        writer.write({}, labels.astype(np.uint32))
    return int(labels.max())


def with_scipy(folder: Path) -> int:
    from scipy import ndimage

    return whole(folder, "inside", lambda maps: ndimage.label(maps[0] > 0.5)[0])


def with_skimage(folder: Path) -> int:
    from skimage.measure import label

    return whole(folder, "inside", lambda maps: label(maps[0] > 0.5, connectivity=1))


def with_our_file(folder: Path) -> int:
    from im2im_zoo.instances.methods import embedseg

    return whole(folder, "embedding", embedseg.group)


def with_dask_image(folder: Path) -> int:
    import dask
    import dask.array as da
    from dask_image.ndmeasure import label

    source = da.from_zarr(str(folder / "inside.ome.zarr" / "0"))[0].rechunk((4096, 4096))
    labels, count = label(source > 0.5)
    target = zarr.create_array(
        store=str(folder / "dask.zarr"),
        shape=source.shape,
        chunks=(4096, 4096),
        dtype="uint32",
        overwrite=True,
    )
    # At once, or all would be computed again for the count.
    _, objects = dask.compute(da.store(labels.astype("uint32"), target, lock=False, compute=False), count)
    return int(objects)


def rows_of(memory: int) -> dict[str, tuple[str, Callable[[Path], int]]]:
    """What is run, by its key: what the table calls it, and the function."""
    size = f"{memory / 2**30:g} GiB"
    return {
        "components": (f"components, blocks within {size}", lambda f: ours(f, "components", memory, 1)),
        "components2": (f"the same, 2 workers within {size}", lambda f: ours(f, "components", memory, 2)),
        "scipy": ("scipy.ndimage.label, whole", with_scipy),
        "skimage": ("skimage.measure.label, whole", with_skimage),
        "dask": ("dask_image.ndmeasure.label, chunks of 4096", with_dask_image),
        "embedseg": (f"EmbedSeg, blocks within {size}", lambda f: ours(f, "embedseg", memory, 1)),
        "embedseg_whole": ("EmbedSeg, whole (our file)", with_our_file),
    }


def child(key: str, folder: Path, memory: int) -> None:
    """Run one row in this process and print its figures."""
    started = time.perf_counter()
    objects = rows_of(memory)[key][1](folder)
    print(json.dumps({"objects": objects, "seconds": time.perf_counter() - started}))


def run(options: list[str]) -> dict[str, Any]:
    """The figures of one row, with the most memory that its processes were seen to have together."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen([sys.executable, __file__, *options], stdout=said, stderr=complained)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.05)
        said.seek(0)
        complained.seek(0)
        if process.returncode != 0:
            return {"failed": f"exit {process.returncode}: {complained.read()[-300:].strip()}"}
        return {**json.loads(said.read().splitlines()[-1]), "peak_bytes": peak}


def _resident(process: int) -> int:
    try:
        parent = psutil.Process(process)
        return sum(p.memory_info().rss for p in (parent, *parent.children(recursive=True)))
    except psutil.Error:  # one has just ended
        return 0


def table(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rows in turn and print the table."""
    make(folder, given.side, given.objects)
    figures: dict[str, Any] = {"side": given.side, "cpus": os.cpu_count(), "numpy": metadata.version("numpy")}
    for key, (name, _) in rows_of(given.memory).items():
        if (given.rows and key not in given.rows) or (key == "dask" and util.find_spec("dask_image") is None):
            continue
        figures[key] = run(["--child", key, "--folder", str(folder), "--memory", str(given.memory)])
        row = figures[key]
        text = row.get("failed") or (
            f"{row['objects']:>9} objects  {row['seconds']:7.1f} s  {row['peak_bytes'] / 2**30:6.2f} GiB"
        )
        print(f"{name:48} {text}", flush=True)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="pixels of the image along y and x")
    parser.add_argument("--objects", type=int, default=100_000, help="about")
    parser.add_argument("--memory", type=int, default=2 * 2**30, help="bytes for our rows")
    parser.add_argument("--rows", nargs="*", help="keys of the rows to run (default: all)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder, given.memory)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            found = table(given, Path(temporary))
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
