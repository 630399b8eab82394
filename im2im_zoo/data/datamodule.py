"""The Lightning data module: images, preprocessed once, as batches of patches."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from im2im_zoo.data.dataset import (
    DEVICE_SEEDS,
    Drawing,
    EpochSampler,
    GridPatches,
    Patch,
    RandomPatches,
    UnpairedPatches,
)
from im2im_zoo.data.pairing import find_pairs
from im2im_zoo.data.pairs import Pairs
from im2im_zoo.data.preprocess import PreparedPairs, Progress, preprocess
from im2im_zoo.errors import DataError
from im2im_zoo.recipe import Recipe

if TYPE_CHECKING:
    from im2im_zoo.data.augmentation import Augmentation, Which


class ImagePairs(pl.LightningDataModule):
    """Batches of a recipe's image pairs: `{"input": (B, C, [Z], Y, X), "target": ...}`, float32.

    With cost maps, `cost` is (B, 1, [Z], Y, X). Where training is unpaired, the input and target of a training batch
    have nothing to do with each other.

    Training patches depend on the recipe's seed, the epoch and their number alone, so runs with other numbers of
    workers and resumed runs see the same ones. Works with Lightning's `use_distributed_sampler`.
    """

    def __init__(
        self,
        recipe: Recipe,
        cache: Path | None = None,
        allow_code: Collection[str] = (),
        *,
        root: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is read before `setup`.

        Args:
            recipe: its data, input, target and seed are used.
            cache: folder that keeps the preprocessed images for the next time; None: a temporary folder, removed by
                `teardown`, or when the object or the process ends.
            allow_code: packages whose augmentations may be used; see `components.resolve`. `custom` among them
                allows the Python of `custom` operations.
            root: folder of the sources of `custom` operations.
            progress: called after each pair is preprocessed.
        """
        super().__init__()
        self._recipe = recipe
        self._cache = cache
        self._allow_code = tuple(allow_code)
        self._root = root
        self._progress = progress
        self._prepared: PreparedPairs | None = None
        self._remove_folder: weakref.finalize[..., ImagePairs] | None = None
        self._pairs: Pairs | None = None
        self._on_device: Augmentation | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs that train and those that validate."""
        if self._pairs is None:
            self._pairs = find_pairs(self._recipe.data, self._recipe.seed)
        return self._pairs

    def prepare_data(self) -> None:
        """Preprocess into the cache, if there is one. Lightning calls this in one process a machine."""
        if self._cache is not None:
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find, check and preprocess the images; nothing is done twice.

        Raises:
            DataError, ImageError, ComponentError: see `find_pairs`, `preprocess` and `build_augmentation`.
        """
        if self._prepared is None:
            # Wrong ones are refused before the work.
            self._augmentation("augmentations")
            self._on_device = self._augmentation("device_augmentations")
            self._prepared = self._preprocess(self._cache or self._temporary_folder())

    def teardown(self, stage: str | None = None) -> None:
        """Remove the temporary folder, if `cache` was None. `setup` makes it again."""
        if self._remove_folder is not None:
            self._prepared = None
            self._remove_folder()
            self._remove_folder = None

    def train_dataloader(self) -> DataLoader[Patch]:
        """Random patches in random order; after each epoch others."""
        data, seed, ready = self._recipe.data, self._recipe.seed, self._ready()
        augment, on_device = self._augmentation("augmentations"), self._on_device is not None
        drawing = Drawing(
            data.patch_size, data.patches_per_image, seed, augment, on_device, data.object_patches
        )
        patches: RandomPatches | UnpairedPatches
        if data.pairing == "unpaired":
            patches = UnpairedPatches(ready.inputs, ready.targets, drawing)
        else:
            patches = RandomPatches(ready.train, drawing)
        return DataLoader(
            patches,
            batch_size=data.batch_size,
            sampler=EpochSampler(len(patches), seed),
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=_own_generator(),
        )

    def val_dataloader(self) -> DataLoader[Patch]:
        """A grid of patches over each validation image, always in the same order."""
        data = self._recipe.data
        # Without augmentation a patch is one small copy: worker processes would only add to the memory.
        return DataLoader(
            GridPatches(self._ready().validation, data.patch_size),
            batch_size=data.batch_size,
            pin_memory=torch.cuda.is_available(),
            generator=_own_generator(),
        )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """A training batch, augmented where it now is."""
        seeds = batch.pop(DEVICE_SEEDS, None)
        if seeds is None or self._on_device is None:
            return batch
        return self._on_device.of_batch(batch, seeds.tolist())

    def _augmentation(self, which: "Which") -> "Augmentation | None":
        if not getattr(self._recipe.data, which):
            return None
        from im2im_zoo.data.augmentation import build_augmentation  # MONAI takes seconds to import

        labels = self._recipe.output.task == "instance"
        return build_augmentation(self._recipe.data, which, self._allow_code, labels=labels)

    def _ready(self) -> PreparedPairs:
        if self._prepared is None:
            raise DataError("the images are not prepared yet: call setup() first")
        return self._prepared

    def _preprocess(self, folder: Path) -> PreparedPairs:
        return preprocess(
            self.pairs,
            self._recipe,
            folder,
            allow_code=self._allow_code,
            root=self._root,
            progress=self._progress,
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_remove_folder": None}  # the folder stays with the process that made it

    def _temporary_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="im2im_zoo_"))
        self._remove_folder = weakref.finalize(self, _remove, folder, os.getpid())
        return folder


def _remove(folder: Path, process: int) -> None:
    # A forked worker inherits the finalizer, but not the folder.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _own_generator() -> torch.Generator:
    """A generator for what the loader itself draws, so that it does not draw from torch's global one."""
    return torch.Generator().manual_seed(0)
