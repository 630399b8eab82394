"""Training samples served by another toolkit, for `benchmarks/data.py`, which runs this with a Python that has it. Knows no im2im_zoo.

For each number that is read, so many samples are served and the seconds of processor time for them are printed.
"""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

PATCH = [128, 128]
Serve = Callable[[int], object]


def mmv_im2im(folder: Path, crops: int) -> Serve:
    """The data module of mmv-im2im with MONAI's PersistentDataset, as the paper uses it; of each image that is loaded, `crops` patches."""
    from mmv_im2im.data_modules.data_loader_basic import Im2ImDataModule

    keys = ["IM", "GT"]
    crop = {"keys": keys, "random_size": False, "num_samples": crops, "roi_size": PATCH}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("LoadImaged", {"keys": keys, "dimension_order_out": "YX", "C": 0, "T": 0, "Z": 0}),
        ("EnsureChannelFirstd", {"keys": keys, "channel_dim": "no_channel"}),
        ("NormalizeIntensityd", {"keys": ["IM"]}),
        ("RandSpatialCropSamplesd", crop),
        ("EnsureTyped", {"keys": keys}),
    ]
    loader = SimpleNamespace(
        dataloader_type={"module_name": "monai.data", "func_name": "PersistentDataset"},
        dataset_params={"cache_dir": str(folder.parent / f"mmv_{crops}")},
        dataloader_params={"batch_size": 1},
        partial_loader=1.0,
    )
    held_out = 1 / len(list((folder / "images").iterdir()))
    module = Im2ImDataModule(
        SimpleNamespace(
            data_path=str(_linked(folder)),
            category="pair",
            preprocess=[{"module_name": "monai.transforms", "func_name": n, "params": p} for n, p in steps],
            augmentation=None,
            dataloader=SimpleNamespace(train_val_ratio=held_out, train=loader, val=loader),
        )
    )
    module.setup()
    dataset = module.train_dataloader().dataset
    return lambda number: [dataset[i % len(dataset)] for i in range(0, number, crops)]


def careamics(folder: Path, in_memory: bool) -> Serve:
    """The data module of CAREamics, its images in memory, or read one after the other as its sampler says."""
    from careamics.config.factories.data_factory import create_data_configuration
    from careamics.lightning.data.data_module import CareamicsDataModule

    config = create_data_configuration(
        data_type="tiff",
        axes="YX",
        patch_size=PATCH,
        batch_size=1,
        augmentations=[],
        normalization={"name": "mean_std"},
        in_memory=in_memory,
        num_workers=0,
        seed=1,
    )
    sides = [sorted((folder / kind).iterdir()) for kind in ("images", "targets")]
    module = CareamicsDataModule(
        config,
        train_data=sides[0][:-1],
        train_data_target=sides[1][:-1],
        val_data=sides[0][-1:],
        val_data_target=sides[1][-1:],
    )
    module.setup("fit")
    loader = module.train_dataloader()
    indices: Iterator[int] = chain.from_iterable(map(iter, repeat(loader.sampler)))
    return lambda number: [loader.dataset[next(indices)] for _ in range(number)]


def _linked(folder: Path) -> Path:
    """The images in one folder, named as mmv-im2im pairs them."""
    linked = folder.parent / "mmv"
    linked.mkdir(exist_ok=True)
    for kind, suffix in (("images", "IM"), ("targets", "GT")):
        for file in (folder / kind).iterdir():
            link = linked / f"{file.stem}_{suffix}.tif"
            if not link.exists():
                link.symlink_to(file)
    return linked


SYSTEMS: dict[str, Callable[[Path], Serve]] = {
    "mmv-im2im, PersistentDataset": lambda folder: mmv_im2im(folder, 1),
    "mmv-im2im, PersistentDataset, 4 patches an image": lambda folder: mmv_im2im(folder, 4),
    "CAREamics, images in memory": lambda folder: careamics(folder, True),
    "CAREamics, TIFF": lambda folder: careamics(folder, False),
}


def main() -> None:
    """Serve the system of the first argument from the folder of the second."""
    torch.set_num_threads(1)
    serve = SYSTEMS[sys.argv[1]](Path(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.process_time()
        serve(int(line))
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main()
