"""torch datasets of patches of preprocessed images, and the sampler that tells them the epoch. Knows no Lightning."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from im2im_zoo.data.objects import boxes_of
from im2im_zoo.data.patches import Draw, Objects, draw_lone_patch, draw_patch, grid, order_of_epoch
from im2im_zoo.data.preprocess import Prepared, PreparedImage

Patch = dict[str, Tensor]
Augment = Callable[[Patch, Sequence[int]], Patch]
"""A patch and seeds: one for all its images, or one for each if they have nothing to do with each other."""

DEVICE_SEEDS = "device_seeds"
"""Where a training batch keeps the seeds of what is done on the device, (batch, one or one an image)."""

# Each map keeps a file open, and systems allow as few as 256.
_OPEN_MAPS = 96


class MappedFiles:
    """`.npy` files as memory maps, the latest used of them kept open. Pickled, it is empty."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Path, NDArray[np.float32]] = OrderedDict()

    def read(self, file: Path, corner: Sequence[int], size: Sequence[int]) -> Tensor:
        """The patch at `corner` of a file with axes channel, (z,) y, x: all channels, a copy in C order."""
        array = self._maps.get(file)
        if array is None:
            array = self._maps[file] = np.load(file, mmap_mode="r", allow_pickle=False)
            if len(self._maps) > _OPEN_MAPS:
                self._maps.popitem(last=False)
        else:
            self._maps.move_to_end(file)
        region = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
        return torch.from_numpy(np.array(array[(slice(None), *region)], order="C", copy=True, subok=False))

    def __getstate__(self) -> dict[str, Any]:
        return {"_maps": OrderedDict()}  # a pickled map would be the whole image


@dataclass(frozen=True, slots=True)
class Drawing:
    """How patches are drawn from training images.

    Attributes:
        patch_size: voxels along the space axes.
        patches_per_image: in an epoch.
        seed: the recipe's.
        augment: what is done to each patch.
        device_seeds: whether items carry the seeds of what is done to them later, under `DEVICE_SEEDS`.
        object_patches: the share of patches that are drawn around an object of the target.
    """

    patch_size: tuple[int, ...]
    patches_per_image: int
    seed: int
    augment: Augment | None = None
    device_seeds: bool = False
    object_patches: float = 0.0

    def finish(self, patch: Patch, draws: Sequence[Draw]) -> Patch:
        """The patch as an item: augmented, and with its seeds."""
        made = patch if self.augment is None else self.augment(patch, [draw.seed for draw in draws])
        if not self.device_seeds:
            return made
        return made | {DEVICE_SEEDS: torch.tensor([draw.device_seed for draw in draws])}


class RandomPatches(Dataset[Patch]):
    """Random patches of training pairs.

    An item is asked for by (epoch, index), as `EpochSampler` does, and depends on nothing else: not on the number
    of workers, nor on which items were asked for before. A plain index is that of epoch 0.
    """

    def __init__(self, images: Sequence[Prepared], drawing: Drawing) -> None:
        self._images = tuple(images)
        self._drawing = drawing
        self._files = MappedFiles()
        share = drawing.object_patches
        self._objects = [Objects(boxes_of(image.target), share) if share else None for image in images]

    def __len__(self) -> int:
        return len(self._images) * self._drawing.patches_per_image

    def __getitem__(self, item: tuple[int, int] | int) -> Patch:
        epoch, index = _item(item, len(self))
        how = self._drawing
        number = index // how.patches_per_image
        image, objects = self._images[number], self._objects[number]
        draw = draw_patch(image.shape, how.patch_size, how.seed, epoch, index, objects)
        return how.finish(_read_pair(self._files, image, draw.corner, how.patch_size), [draw])


class UnpairedPatches(Dataset[Patch]):
    """Random patches of inputs, each with a random patch of the targets, drawn independently of each other.

    Items are asked for, and depend on what is asked for, as in `RandomPatches`. An epoch has `patches_per_image` for
    each image of the side that has more.
    """

    def __init__(
        self, inputs: Sequence[PreparedImage], targets: Sequence[PreparedImage], drawing: Drawing
    ) -> None:
        self._sides = {"input": tuple(inputs), "target": tuple(targets)}
        self._drawing = drawing
        self._files = MappedFiles()

    def __len__(self) -> int:
        return max(map(len, self._sides.values())) * self._drawing.patches_per_image

    def __getitem__(self, item: tuple[int, int] | int) -> Patch:
        epoch, index = _item(item, len(self))
        how = self._drawing
        patch: Patch = {}
        draws = []
        for stream, (side, images) in enumerate(self._sides.items()):
            shapes = [image.shape for image in images]
            number, draw = draw_lone_patch(shapes, how.patch_size, stream, how.seed, epoch, index)
            patch[side] = self._files.read(images[number].file, draw.corner, how.patch_size)
            draws.append(draw)
        return how.finish(patch, draws)


class GridPatches(Dataset[Patch]):
    """Patches that cover each validation image; see `patches.grid`. Nothing is random."""

    def __init__(self, images: Sequence[Prepared], patch_size: Sequence[int]) -> None:
        self._patch_size = tuple(patch_size)
        self._places = [(image, corner) for image in images for corner in grid(image.shape, patch_size)]
        self._files = MappedFiles()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Patch:
        image, corner = self._places[index]
        return _read_pair(self._files, image, corner, self._patch_size)


class EpochSampler(Sampler[tuple[int, int]]):
    """All indices in an order of the epoch, each with the epoch, so that worker processes know it.

    Lightning calls `set_epoch` before each epoch, also through the wrapper that it makes for several devices;
    a loop of one's own has to call it, else every epoch is the first.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self._epoch
        return ((epoch, index) for index in order_of_epoch(self._count, self._seed, epoch))


def _item(item: tuple[int, int] | int, count: int) -> tuple[int, int]:
    epoch, index = item if isinstance(item, tuple) else (0, item)
    if not 0 <= index < count:
        raise IndexError(index)
    return epoch, index


def _read_pair(files: MappedFiles, image: Prepared, corner: Sequence[int], size: Sequence[int]) -> Patch:
    kinds = {"input": image.input, "target": image.target, "cost": image.cost}
    return {kind: files.read(file, corner, size) for kind, file in kinds.items() if file is not None}
