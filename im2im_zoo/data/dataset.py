"""torch datasets of patches of preprocessed images, and the sampler that tells them the epoch. Knows no Lightning."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from im2im_zoo.data.patches import draw_patch, grid, order_of_epoch
from im2im_zoo.data.preprocess import Prepared

Patch = dict[str, Tensor]
Augment = Callable[[Patch, int], Patch]
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


class RandomPatches(Dataset[Patch]):
    """Random patches of training images.

    An item is asked for by (epoch, index), as `EpochSampler` does, and depends on nothing else: not on the number
    of workers, nor on which items were asked for before. A plain index is that of epoch 0.
    """

    def __init__(
        self,
        images: Sequence[Prepared],
        patch_size: Sequence[int],
        patches_per_image: int,
        seed: int,
        augment: Augment | None = None,
    ) -> None:
        self._images = tuple(images)
        self._patch_size = tuple(patch_size)
        self._patches_per_image = patches_per_image
        self._seed = seed
        self._augment = augment
        self._files = MappedFiles()

    def __len__(self) -> int:
        return len(self._images) * self._patches_per_image

    def __getitem__(self, item: tuple[int, int] | int) -> Patch:
        epoch, index = item if isinstance(item, tuple) else (0, item)
        if not 0 <= index < len(self):
            raise IndexError(index)
        image = self._images[index // self._patches_per_image]
        draw = draw_patch(image.shape, self._patch_size, self._seed, epoch, index)
        patch = _read_pair(self._files, image, draw.corner, self._patch_size)
        return patch if self._augment is None else self._augment(patch, draw.seed)


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


def _read_pair(files: MappedFiles, image: Prepared, corner: Sequence[int], size: Sequence[int]) -> Patch:
    return {"input": files.read(image.input, corner, size), "target": files.read(image.target, corner, size)}
