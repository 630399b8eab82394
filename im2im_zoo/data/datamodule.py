"""Lightning data module: batches of patches from images that are preprocessed once."""

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
from im2im_zoo.data.cache.cache_folder import Lease, find_user_folder, make_temporary_folder
from im2im_zoo.data.cache.preprocess import PreparedPairs, PreprocessingPlan, Progress, plan_preprocessing
from im2im_zoo.data.cache.rotating_cache import ImageRotation, RotatingCache
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pairs
from im2im_zoo.data.patches.advice import Choice, choose_workers
from im2im_zoo.data.patches.dataset import (
    DEVICE_SEEDS,
    PATCH_POSITIONS,
    EpochSampler,
    GridPatches,
    Patch,
    PatchSampling,
    RandomPatches,
    UnpairedPatches,
)
from im2im_zoo.data.patches.loss_map import LossMap
from im2im_zoo.recipe import Recipe

if TYPE_CHECKING:
    from im2im_zoo.data.patches.augmentation import Augmentation, AugmentationKey

# Environment variable by which the first of several processes on a machine shares its temporary folder.
_SHARED = "IM2IM_ZOO_TEMPORARY_IMAGES"


class ImagePairs(pl.LightningDataModule):
    """Batches of a recipe's image pairs: `{"input": (B, C, [Z], Y, X), "target": ...}`, float32.

    With cost maps, `cost` is (B, 1, [Z], Y, X). In unpaired training, the input and the target of a training batch are
    independent.

    Training patches depend only on the recipe's seed, the epoch and their number, so runs with other numbers of workers
    and resumed runs see the same ones. Works with Lightning's `use_distributed_sampler`.
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
        """Initialize; no file is read before `setup`.

        Args:
            recipe: its data, input, target and seed are used.
            cache: folder that keeps the preprocessed images for later runs; None: the recipe's `data.cache`. A
                temporary folder is removed by `teardown`, or when the object or the process ends.
            allow_code: packages whose augmentations may be used; see `components.resolve_component`. `custom` among them
                allows the Python of `custom` operations.
            root: folder of the sources of `custom` operations.
            progress: called after each pair is preprocessed before training.
        """
        super().__init__()
        self._recipe = recipe
        # An attribute, because Lightning's BatchSizeFinder changes it.
        self.batch_size = recipe.data.batch
        self._cache = cache or _find_kept_folder(recipe.data.cache)
        self._allow_code = tuple(allow_code)
        self._root = root
        self._progress = progress
        self._prepared: PreparedPairs | None = None
        self._remove_folder: weakref.finalize[..., ImagePairs] | None = None
        self._lease: Lease | None = None
        self._rotating_cache: RotatingCache | None = None
        self._pairs: Pairs | None = None
        self._on_device: Augmentation | None = None
        self.loss_map: LossMap | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs of training and validation."""
        if self._pairs is None:
            self._pairs = find_pairs(self._recipe.data, self._recipe.seed)
        return self._pairs

    @property
    def kept_folder(self) -> Path | None:
        """The folder that keeps preprocessed images, or their statistics, for later runs; None if there is none."""
        return self._cache

    @property
    def choices(self) -> dict[str, Choice]:
        """Values that the recipe leaves open and that are selected for this machine, by key."""
        if self._recipe.data.workers is not None:
            return {}
        chosen = choose_workers(self._recipe.trainer, gpu=torch.cuda.is_available())
        return {chosen.key: chosen}

    def prepare_data(self) -> None:
        """Preprocess into the cache, if there is one. Lightning calls this in one process a machine."""
        if self._cache is not None:
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find, check and preprocess the images, unless that is done already.

        Raises:
            DataError, ImageError, ComponentError: see `find_pairs`, `plan_preprocessing` and `build_augmentation`.
        """
        if self._prepared is None:
            # Refuse wrong augmentations before the work.
            self._augmentation("augmentations")
            self._on_device = self._augmentation("device_augmentations")
            self._prepared = self._preprocess()
            self.loss_map = self._make_loss_map()

    def teardown(self, stage: str | None = None) -> None:
        """Release the images: remove a temporary folder, and let other processes remove files of a kept cache."""
        if self._rotating_cache is not None:
            self._rotating_cache.close()
            self._rotating_cache, self._prepared = None, None
        if self._lease is not None:
            self._lease.release()
            self._lease, self._prepared = None, None
        if self._remove_folder is not None:
            self._prepared = None
            self._remove_folder()
            self._remove_folder = None

    def train_dataloader(self) -> DataLoader[Patch]:
        """Return a loader of random patches in random order, different ones in each epoch."""
        data, seed, ready = self._recipe.data, self._recipe.seed, self._require_prepared()
        augment, on_device = self._augmentation("augmentations"), self._on_device is not None
        workers = self.choices["data.workers"].value if data.workers is None else data.workers
        sampling = PatchSampling(
            data.patch,
            data.patches_per_image,
            seed,
            augment,
            on_device,
            data.object_patches,
            data.foreground_patches,
            data.cost_patches,
            self.loss_map is not None,
        )
        patches: RandomPatches | UnpairedPatches
        if data.pairing == "unpaired":
            patches = UnpairedPatches(ready.inputs, ready.targets, sampling)
        else:
            patches = RandomPatches(ready.train, sampling, self._make_rotation())
        return DataLoader(
            patches,
            batch_size=self.batch_size,
            sampler=EpochSampler(
                len(patches),
                seed,
                None if self._rotating_cache is None else self._rotating_cache.begin_epoch,
                self.loss_map,
            ),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=_make_generator(),
        )

    def val_dataloader(self) -> DataLoader[Patch]:
        """Return a loader of a grid of patches over each validation image, always in the same order."""
        data = self._recipe.data
        # Without augmentation a patch is one small copy, so worker processes would only cost memory.
        return DataLoader(
            GridPatches(self._require_prepared().validation, data.patch),
            batch_size=self.batch_size,
            pin_memory=torch.cuda.is_available(),
            generator=_make_generator(),
        )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Apply the device augmentations to a training batch."""
        seeds = batch.pop(DEVICE_SEEDS, None)
        if seeds is None or self._on_device is None:
            return batch
        places = {key: batch.pop(key) for key in (PATCH_POSITIONS,) if key in batch}
        return self._on_device.apply_to_batch(batch, seeds.tolist()) | places

    def state_dict(self) -> dict[str, Any]:
        """Return the loss map for checkpoints; empty without hard patches."""
        return {} if self.loss_map is None else {"hard": torch.from_numpy(self.loss_map.losses.copy())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the loss map of a checkpoint."""
        if self.loss_map is not None:
            self.loss_map.losses = state_dict["hard"].numpy()

    def _augmentation(self, which: "AugmentationKey") -> "Augmentation | None":
        if not getattr(self._recipe.data, which):
            return None
        from im2im_zoo.data.patches.augmentation import build_augmentation  # MONAI takes seconds to import

        labels = self._recipe.output.task == "instance"
        return build_augmentation(self._recipe.data, which, self._allow_code, labels=labels)

    def _require_prepared(self) -> PreparedPairs:
        if self._prepared is None:
            raise DataError("the images are not prepared yet: call setup() first")
        return self._prepared

    def _make_rotation(self) -> ImageRotation:
        data = self._recipe.data
        return ImageRotation(len(self.pairs.train), data.loaded, data.exchange_epochs, self._recipe.seed)

    def _make_loss_map(self) -> LossMap | None:
        """Make the map of losses, by which hard patches are drawn."""
        data = self._recipe.data
        if not data.hard_patches:
            return None
        shapes = [image.shape for image in self._require_prepared().train]
        return LossMap(shapes, data.patch, data.hard_patches, self._recipe.seed, self._make_rotation())

    def _preprocess(self) -> PreparedPairs:
        """Write the files of all images, or only of the validation images, or only measure the statistics of each."""
        data, folder = self._recipe.data, self._cache or self._temporary_folder()
        plan = plan_preprocessing(
            self.pairs,
            self._recipe,
            folder,
            allow_code=self._allow_code,
            root=self._root,
            durable=self._cache is not None,
        )
        if data.cache == "none":
            return plan.open_lazily(self.pairs, self._recipe, self._progress)
        if self._cache is not None:
            self._lease = Lease(folder, round(data.cache_gb * 1e9))
        count, in_rounds = len(self.pairs.train), data.loaded < 1
        at_once = range(count if in_rounds else 0, len(plan.names))
        if in_rounds:
            self._rotating_cache = self._make_rotating_cache(plan, at_once)
        files = _list_files(plan, at_once)
        if self._lease is not None:
            self._lease.check(plan.size_of(at_once))
        # Before they are written, so that no process removes them, and after, when their size is known.
        self._use_files(files)
        plan.write(at_once, self._progress)
        self._use_files(files)
        return plan.prepared

    def _make_rotating_cache(self, plan: PreprocessingPlan, validation: range) -> RotatingCache:
        always = _list_files(plan, validation)
        return RotatingCache(
            plan,
            self._make_rotation(),
            lambda files: self._use_files(files | always),
            remove=self._remove_folder is not None,
        )

    def _use_files(self, files: frozenset[Path]) -> None:
        if self._lease is not None:
            self._lease.use(files)

    def __getstate__(self) -> dict[str, Any]:
        # The folder, the lease and the rotating cache stay with the process that made them.
        return vars(self) | {"_remove_folder": None, "_lease": None, "_rotating_cache": None}

    def _temporary_folder(self) -> Path:
        # Lightning starts the other processes of a training with the same command and the environment of the first.
        shared = os.environ.get(_SHARED)
        if os.environ.get("LOCAL_RANK", "0") != "0" and shared and Path(shared).is_dir():
            return Path(shared)
        folder, handle = make_temporary_folder()
        os.environ[_SHARED] = str(folder)
        self._remove_folder = weakref.finalize(self, _remove_folder_once, folder, handle, os.getpid())
        return folder


def _remove_folder_once(folder: Path, handle: int, process: int) -> None:
    # A forked worker inherits the finalizer, but not the folder.
    if os.getpid() == process:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _make_generator() -> torch.Generator:
    """Return a generator for the loader itself, so that it does not use torch's global one."""
    return torch.Generator().manual_seed(0)


def _find_kept_folder(cache: str) -> Path | None:
    """Return the folder that keeps images, or with `none` their statistics; None for a temporary one."""
    if cache == "temporary":
        return None
    return find_user_folder() if cache in ("kept", "none") else Path(cache).expanduser()


def _list_files(plan: PreprocessingPlan, entries: range) -> frozenset[Path]:
    return frozenset[Path]().union(*(plan.files[number] for number in entries))
