"""Processor time of training with im2im_zoo beside a bare PyTorch loop over the same: `python benchmarks/training.py`.

The same network, loss, optimizer, patches and validation; the bare loop checks nothing, logs nothing and keeps nothing. Both
take turns in this process, on one thread. What is compared is from the end of the first epoch to the end of the last, so that
neither imports nor the making of the cache count; medians over the turns, and of the ratios within a turn. See README.md.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet

from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.samples import write_samples
from im2im_zoo.training.callbacks import TrainingProgress
from im2im_zoo.training.train import train


def recipe_of(folder: Path, features: list[int], patches: int, epochs: int) -> Recipe:
    """The recipe nuclei_2d without augmentation and figures, which a bare loop has neither."""
    return load_recipe(
        "nuclei_2d",
        [
            ("data.path", str(folder)),
            ("data.augmentations", []),
            ("data.patches_per_image", patches),
            ("network.kwargs.features", features),
            ("framework.kwargs.metrics", {}),
            ("monitor", "val_loss"),
            ("monitor_mode", "min"),
            ("trainer.max_epochs", epochs),
            ("trainer.accelerator", "cpu"),
        ],
    )


def ours(recipe: Recipe, output: Path) -> float:
    """CPU seconds from the end of the first epoch to the end."""
    ends: list[float] = []

    def report(state: TrainingProgress) -> None:
        if (
            state.total_batches
            and state.epochs
            and state.batches % (state.total_batches // state.epochs) == 0
        ):
            now = time.process_time()
            if len(ends) <= state.epoch:
                ends.append(now)
            ends[state.epoch] = now  # the later of the two reports: after validation and checkpoints

    train(recipe, output, report=report)
    return ends[-1] - ends[0]


def bare(recipe: Recipe) -> float:
    """The same of a loop as in PyTorch's tutorials, over the same batches."""
    data = ImagePairs(recipe)
    data.setup("fit")
    loader, held_out = data.train_dataloader(), data.val_dataloader()
    torch.manual_seed(0)
    network = BasicUNet(**recipe.network.kwargs)
    loss_of = DiceCELoss(sigmoid=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    ends = []
    for epoch in range(int(recipe.trainer["max_epochs"])):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch["input"]), batch["target"])
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            sum(float(loss_of(network(batch["input"]), batch["target"])) for batch in held_out)
        ends.append(time.process_time())
    data.teardown("fit")
    return ends[-1] - ends[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patches", type=int, default=96, help="an epoch, in batches of 8")
    parser.add_argument("--features", type=int, nargs=6, default=[32, 32, 64, 128, 256, 32])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = write_samples("nuclei_2d", Path(place) / "images")
        recipe = recipe_of(folder, options.features, options.patches, options.epochs)
        pairs = []
        for turn in range(options.turns):
            pairs.append((ours(recipe, Path(place) / f"run{turn}"), bare(recipe)))
    steps = options.patches // 8 * (options.epochs - 1)
    print(f"| {steps} steps of 8 patches of 128 x 128, features {options.features} | CPU ms per step |")
    print("|---|---:|")
    for name, seconds in zip(("im2im_zoo", "bare loop"), zip(*pairs, strict=True), strict=True):
        print(f"| {name} | {1000 * statistics.median(seconds) / steps:.1f} |")
    ratios = [one / other for one, other in pairs]
    print(
        f"\nim2im_zoo / bare loop: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f} in "
        f"{options.turns} turns)"
    )


if __name__ == "__main__":
    main()
