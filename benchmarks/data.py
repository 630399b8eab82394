"""Processor time per training sample by im2im_zoo beside MONAI's datasets: `python benchmarks/data.py`. Prints a table.

All serve the same: a random patch of 128 x 128 of an image normalised as a whole, and the same patch of its target. The systems
take turns, so that what else the machine does falls on all alike; what is told are medians over the turns. See README.md.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
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
from im2im_zoo.recipe_file import load_recipe

Serve = Callable[[int], object]
PATCH = 128


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--samples", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_pairs(root, options.images, options.side)
        systems = {
            "im2im_zoo, cache": ours(root / "tif", "temporary"),
            "im2im_zoo, no cache, TIFF": ours(root / "tif", "none"),
            "im2im_zoo, no cache, OME-Zarr": ours(root / "zarr", "none"),
            "MONAI PersistentDataset": monai(root / "npy", root / "persistent"),
            "MONAI CacheDataset": monai(root / "npy", None),
            "memory map alone": memory_map(root / "npy"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for turn in range(options.turns + 1):  # the first one fills caches
            for name, serve in systems.items():
                started = time.process_time()
                for index in range(turn * options.samples, (turn + 1) * options.samples):
                    serve(index)
                if turn:
                    seconds[name].append((time.process_time() - started) / options.samples)
    first = statistics.median(seconds["im2im_zoo, cache"])
    print(
        f"| {options.images} pairs of {options.side} x {options.side} | CPU ms per sample | / im2im_zoo's |"
    )
    print("|---|---:|---:|")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"| {name} | {1000 * median:.2f} | {median / first:.1f} |")


if __name__ == "__main__":
    main()
