"""The Lightning data module: images, preprocessed once, as batches of patches."""

import os
import shutil
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.cache.cache_folder import Lease, user_folder
from im2im_zoo.data.cache.preprocess import Preparation, PreparedPairs, Progress, plan_all
from im2im_zoo.data.cache.rounds import Rounds
from im2im_zoo.data.cache.stock import Stock
from im2im_zoo.data.cache.temporary_folder import make_temporary_folder
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pairs
from im2im_zoo.data.patches.advice import Choice, choose_workers
from im2im_zoo.data.patches.dataset import (
    DEVICE_SEEDS,
    PLACES,
    Drawing,
    EpochSampler,
    GridPatches,
    Patch,
    RandomPatches,
    UnpairedPatches,
)
from im2im_zoo.data.patches.hard_places import HardPlaces
from im2im_zoo.recipe import Recipe

if TYPE_CHECKING:
    from im2im_zoo.data.patches.augmentation import Augmentation, Which

# Where the first of several processes on a machine tells the others of its temporary folder.
_SHARED = "IM2IM_ZOO_TEMPORARY_IMAGES"


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
            cache: folder that keeps the preprocessed images for the next time; None: as the recipe's `data.cache` says. A
                temporary folder is removed by `teardown`, or when the object or the process ends.
            allow_code: packages whose augmentations may be used; see `components.resolve_component`. `custom` among them
                allows the Python of `custom` operations.
            root: folder of the sources of `custom` operations.
            progress: called after each pair is preprocessed before training.
        """
        super().__init__()
        self._recipe = recipe
        # Lightning's BatchSizeFinder changes it.
        self.batch_size = recipe.data.batch
        self._cache = cache or _kept_folder(recipe.data.cache)
        self._allow_code = tuple(allow_code)
        self._root = root
        self._progress = progress
        self._prepared: PreparedPairs | None = None
        self._remove_folder: weakref.finalize[..., ImagePairs] | None = None
        self._lease: Lease | None = None
        self._stock: Stock | None = None
        self._pairs: Pairs | None = None
        self._on_device: Augmentation | None = None
        self.hard_places: HardPlaces | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs that train and those that validate."""
        if self._pairs is None:
            self._pairs = find_pairs(self._recipe.data, self._recipe.seed)
        return self._pairs

    @property
    def kept_folder(self) -> Path | None:
        """The folder that keeps what is made of the images, or measured of them, for the next time; None if none does."""
        return self._cache

    @property
    def choices(self) -> dict[str, Choice]:
        """What the recipe leaves to be chosen for this machine, by its keys."""
        if self._recipe.data.workers is not None:
            return {}
        chosen = choose_workers(self._recipe.trainer, gpu=torch.cuda.is_available())
        return {chosen.key: chosen}

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
            self._prepared = self._preprocess()
            self.hard_places = self._make_hard_places()

    def teardown(self, stage: str | None = None) -> None:
        """Let go of the images: remove a temporary folder, and let others remove what a cache keeps. `setup` makes it again."""
        if self._stock is not None:
            self._stock.end()
            self._stock, self._prepared = None, None
        if self._lease is not None:
            self._lease.end()
            self._lease, self._prepared = None, None
        if self._remove_folder is not None:
            self._prepared = None
            self._remove_folder()
            self._remove_folder = None

    def train_dataloader(self) -> DataLoader[Patch]:
        """Random patches in random order; after each epoch others."""
        data, seed, ready = self._recipe.data, self._recipe.seed, self._ready()
        augment, on_device = self._augmentation("augmentations"), self._on_device is not None
        workers = self.choices["data.workers"].value if data.workers is None else data.workers
        drawing = Drawing(
            data.patch,
            data.patches_per_image,
            seed,
            augment,
            on_device,
            data.object_patches,
            data.foreground_patches,
            data.cost_patches,
            self.hard_places is not None,
        )
        patches: RandomPatches | UnpairedPatches
        if data.pairing == "unpaired":
            patches = UnpairedPatches(ready.inputs, ready.targets, drawing)
        else:
            patches = RandomPatches(ready.train, drawing, self._rounds())
        return DataLoader(
            patches,
            batch_size=self.batch_size,
            sampler=EpochSampler(
                len(patches), seed, None if self._stock is None else self._stock.enter, self.hard_places
            ),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=_own_generator(),
        )

    def val_dataloader(self) -> DataLoader[Patch]:
        """A grid of patches over each validation image, always in the same order."""
        data = self._recipe.data
        # Without augmentation a patch is one small copy: worker processes would only add to the memory.
        return DataLoader(
            GridPatches(self._ready().validation, data.patch),
            batch_size=self.batch_size,
            pin_memory=torch.cuda.is_available(),
            generator=_own_generator(),
        )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """A training batch, augmented where it now is."""
        seeds = batch.pop(DEVICE_SEEDS, None)
        if seeds is None or self._on_device is None:
            return batch
        places = {key: batch.pop(key) for key in (PLACES,) if key in batch}
        return self._on_device.of_batch(batch, seeds.tolist()) | places

    def state_dict(self) -> dict[str, Any]:
        """What was learnt of hard places, for checkpoints; nothing if none are looked for."""
        return {} if self.hard_places is None else {"hard": torch.from_numpy(self.hard_places.losses.copy())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what a checkpoint has learnt."""
        if self.hard_places is not None:
            self.hard_places.losses = state_dict["hard"].numpy()

    def _augmentation(self, which: "Which") -> "Augmentation | None":
        if not getattr(self._recipe.data, which):
            return None
        from im2im_zoo.data.patches.augmentation import build_augmentation  # MONAI takes seconds to import

        labels = self._recipe.output.task == "instance"
        return build_augmentation(self._recipe.data, which, self._allow_code, labels=labels)

    def _ready(self) -> PreparedPairs:
        if self._prepared is None:
            raise DataError("the images are not prepared yet: call setup() first")
        return self._prepared

    def _rounds(self) -> Rounds:
        data = self._recipe.data
        return Rounds(len(self.pairs.train), data.loaded, data.exchange_epochs, self._recipe.seed)

    def _make_hard_places(self) -> HardPlaces | None:
        """The places that are drawn more often once their losses are known."""
        data = self._recipe.data
        if not data.hard_patches:
            return None
        shapes = [image.shape for image in self._ready().train]
        return HardPlaces(shapes, data.patch, data.hard_patches, self._recipe.seed, self._rounds())

    def _preprocess(self) -> PreparedPairs:
        """Make the files of all images, or of those that validate, or only take the statistics of each."""
        data, folder = self._recipe.data, self._cache or self._temporary_folder()
        preparation = plan_all(self.pairs, self._recipe, folder, allow_code=self._allow_code, root=self._root)
        if data.cache == "none":
            return preparation.raw(self.pairs, self._recipe, self._progress)
        if self._cache is not None:
            self._lease = Lease(folder, round(data.cache_gb * 1e9))
        count, in_rounds = len(self.pairs.train), data.loaded < 1
        at_once = range(count if in_rounds else 0, len(preparation.names))
        if in_rounds:
            self._stock = self._make_stock(preparation, at_once)
        files = _files(preparation, at_once)
        if self._lease is not None:
            self._lease.check(preparation.size_of(at_once))
        # Before they are made, so that nobody removes them, and after, when it is known what they take.
        self._use(files)
        preparation.write(at_once, self._progress)
        self._use(files)
        return preparation.prepared

    def _make_stock(self, preparation: Preparation, validation: range) -> Stock:
        always = _files(preparation, validation)
        return Stock(
            preparation,
            self._rounds(),
            lambda files: self._use(files | always),
            remove=self._remove_folder is not None,
        )

    def _use(self, files: frozenset[Path]) -> None:
        if self._lease is not None:
            self._lease.use(files)

    def __getstate__(self) -> dict[str, Any]:
        # The folder, and who keeps it, stay with the process that made it.
        return vars(self) | {"_remove_folder": None, "_lease": None, "_stock": None}

    def _temporary_folder(self) -> Path:
        # Lightning starts the other processes of a training by the same command, with the environment of the first.
        shared = os.environ.get(_SHARED)
        if os.environ.get("LOCAL_RANK", "0") != "0" and shared and Path(shared).is_dir():
            return Path(shared)
        folder, handle = make_temporary_folder()
        os.environ[_SHARED] = str(folder)
        self._remove_folder = weakref.finalize(self, _remove, folder, handle, os.getpid())
        return folder


def _remove(folder: Path, handle: int, process: int) -> None:
    # A forked worker inherits the finalizer, but not the folder.
    if os.getpid() == process:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _own_generator() -> torch.Generator:
    """A generator for what the loader itself draws, so that it does not draw from torch's global one."""
    return torch.Generator().manual_seed(0)


def _kept_folder(cache: str) -> Path | None:
    """The folder that keeps images, or of `none` their statistics; None: a temporary one."""
    if cache == "temporary":
        return None
    return user_folder() if cache in ("kept", "none") else Path(cache).expanduser()


def _files(preparation: Preparation, entries: range) -> frozenset[Path]:
    return frozenset[Path]().union(*(preparation.files[number] for number in entries))
