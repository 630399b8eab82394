"""Processor time per training sample by im2im_zoo beside other toolkits: `python benchmarks/data.py`. Prints a table.

All serve the same: a random patch of 128 x 128 of an image normalised as a whole, and the same patch of its target. The systems
take turns, so that what else the machine does falls on all alike; what is told are medians over the turns. See README.md.
Those with other requirements run in a Python of their own (`--mmv-im2im PYTHON`, `--careamics PYTHON`) and are left out without one.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tifffile
import torch
from data_peers import SYSTEMS
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    RandSpatialCropd,
)

from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.images import write_image
from im2im_zoo.recipe.load import load_recipe

Serve = Callable[[int], object]
Turn = Callable[[int, int], float]
"""Serves samples from a number on, so many, and tells the seconds of processor time."""
PATCH = 128
PEERS = Path(__file__).with_name("data_peers.py")


def write_pairs(folder: Path, count: int, side: int) -> None:
    """Pairs of noise, as TIFF, OME-Zarr of chunks of 256 and `.npy`."""
    import xarray as xr

    random = np.random.default_rng(0)
    for kind in ("images", "targets"):
        for form in ("tif", "zarr", "npy"):
            (folder / form / kind).mkdir(parents=True)
        for number in range(count):
            voxels = random.integers(0, 4096, (side, side), dtype=np.uint16)
            tifffile.imwrite(folder / "tif" / kind / f"{number:03}.tif", voxels, metadata={"axes": "YX"})
            image = xr.DataArray(voxels, dims=("y", "x"))
            write_image(image, folder / "zarr" / kind / f"{number:03}.ome.zarr")
            np.save(folder / "npy" / kind / f"{number:03}.npy", voxels)


def ours(folder: Path, cache: str) -> Serve:
    """im2im_zoo's own dataset, one item at a time."""
    recipe = load_recipe(
        "nuclei_2d",
        [
            ("data.path", str(folder)),
            ("data.split", "random"),
            ("data.patch_size", [PATCH, PATCH]),
            ("data.augmentations", []),
            ("data.cache", cache),
            ("input.preprocessing", [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]),
            ("target.preprocessing", []),
        ],
    )  # fmt: skip
    data = ImagePairs(recipe)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    count = len(dataset)  # type: ignore[arg-type]
    ours_of_epoch: Serve = lambda index: (data, dataset[index // count, index % count])  # noqa: E731
    return ours_of_epoch


def monai(folder: Path, cache: Path | None) -> Serve:
    """PersistentDataset if there is a folder for it, else CacheDataset, of the same images as `.npy`."""
    keys = ("input", "target")
    files = [
        {"input": str(path), "target": str(folder / "targets" / path.name)}
        for path in sorted((folder / "images").iterdir())
    ]
    transforms = Compose(
        [
            LoadImaged(keys, reader="NumpyReader"),
            EnsureChannelFirstd(keys, channel_dim="no_channel"),
            NormalizeIntensityd("input"),
            RandSpatialCropd(keys, (PATCH, PATCH), random_size=False),
        ]
    )
    if cache is None:
        dataset = CacheDataset(files, transforms, progress=False, copy_cache=False)
    else:
        dataset = PersistentDataset(files, transforms, cache_dir=cache)
    count = len(files)
    return lambda index: dataset[index % count]


def memory_map(folder: Path) -> Serve:
    """Nothing but two copies out of memory maps that stay open."""
    pairs = [
        [np.load(folder / kind / path.name, mmap_mode="r") for kind in ("images", "targets")]
        for path in sorted((folder / "images").iterdir())
    ]
    random = np.random.default_rng(0)

    def serve(index: int) -> object:
        y, x = (int(random.integers(size - PATCH + 1)) for size in pairs[0][0].shape)
        return [
            torch.from_numpy(np.array(m[y : y + PATCH, x : x + PATCH])) for m in pairs[index % len(pairs)]
        ]

    return serve


def turn_of(serve: Serve) -> Turn:
    """Turns of a system in this process."""

    def turn(first: int, count: int) -> float:
        started = time.process_time()
        for index in range(first, first + count):
            serve(index)
        return time.process_time() - started

    return turn


def peer(python: str, name: str, folder: Path, running: ExitStack) -> Turn | None:
    """Turns of a system of `data_peers.py` in a Python that has it; None, and a line that says why, if it does not start."""
    process = running.enter_context(
        subprocess.Popen(
            [python, str(PEERS), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout
    running.callback(requests.close)
    for line in answers:
        if line.strip() == "ready":
            break
    else:
        _, said = process.communicate()
        print(f"{name}: left out: {said.strip().splitlines()[-1] if said.strip() else 'it ended'}")
        return None

    def turn(first: int, count: int) -> float:
        requests.write(f"{count}\n")
        requests.flush()
        return float(answers.readline())

    return turn


def measure(systems: dict[str, Turn], turns: int, samples: int) -> dict[str, float]:
    """Median seconds per sample of each system; the first turn fills caches and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(turns + 1):
        for name, serve in systems.items():
            needed = serve(turn * samples, samples) / samples
            if turn:
                seconds[name].append(needed)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--mmv-im2im", metavar="PYTHON", help="a Python that has mmv-im2im")
    parser.add_argument("--careamics", metavar="PYTHON", help="a Python that has careamics")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pythons = {"mmv-im2im": options.mmv_im2im, "CAREamics": options.careamics}
    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        root = Path(place)
        write_pairs(root, options.images, options.side)
        systems = {
            "im2im_zoo, cache": turn_of(ours(root / "tif", "temporary")),
            "im2im_zoo, no cache, TIFF": turn_of(ours(root / "tif", "none")),
            "im2im_zoo, no cache, OME-Zarr": turn_of(ours(root / "zarr", "none")),
            "MONAI PersistentDataset": turn_of(monai(root / "npy", root / "persistent")),
            "MONAI CacheDataset": turn_of(monai(root / "npy", None)),
            "memory map alone": turn_of(memory_map(root / "npy")),
        }
        for name in SYSTEMS:
            python = pythons[name.partition(",")[0]]
            found = peer(python, name, root / "tif", running) if python else None
            if found is not None:
                systems[name] = found
            elif not python:
                print(f"{name}: left out: give a Python that has it")
        needed = measure(systems, options.turns, options.samples)
    ours_needs = needed["im2im_zoo, cache"]
    print(
        f"| {options.images} pairs of {options.side} x {options.side} | CPU ms per sample | samples per CPU s | / im2im_zoo's |"
    )
    print("|---|---:|---:|---:|")
    for name, median in needed.items():
        print(f"| {name} | {1000 * median:.2f} | {1 / median:.0f} | {median / ours_needs:.1f} |")


if __name__ == "__main__":
    main()
