"""torch datasets of patches of preprocessed images, and the sampler that passes the epoch to them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from im2im_zoo.data.cache.preprocess import PreparedImage, PreparedPair
from im2im_zoo.data.cache.rotating_cache import ImageRotation
from im2im_zoo.data.cache.stored import RegionReader, StoredImage
from im2im_zoo.data.patches.center_samplers import (
    ObjectSampler,
    PatchCenterSampler,
    find_object_boxes,
    measure_weights,
)
from im2im_zoo.data.patches.loss_map import LossMap, PatchCenter
from im2im_zoo.data.patches.placement import (
    PatchSpec,
    list_grid_corners,
    sample_patch,
    sample_unpaired_patch,
    shuffle_epoch,
)

Patch = dict[str, Tensor]
Augment = Callable[[Patch, Sequence[int]], Patch]
"""Function of a patch and seeds: one for all its images, or one for each if they are unpaired."""

DEVICE_SEEDS = "device_seeds"
"""Key of a training batch's seeds for augmentation on the device, (batch, 1) or (batch, image)."""

PATCH_POSITIONS = "places"
"""Key of the image number and the first voxel of each patch, (batch, 1 + axis), used with hard patches."""

Item = tuple[int, int] | tuple[int, int, PatchCenter]
"""The epoch, the number of a patch in it, and its center if it is a hard patch."""


@dataclass(frozen=True, slots=True)
class PatchSampling:
    """Settings for sampling patches from training images.

    Attributes:
        patch_size: voxels along the space axes.
        patches_per_image: in an epoch.
        seed: the recipe's.
        augment: applied to each patch, if any.
        device_seeds: whether items carry seeds for augmentation on the device, under `DEVICE_SEEDS`.
        object_patches, foreground_patches, cost_patches: share of patches that are drawn around an object of the target,
            its foreground, or in proportion to the cost; at most one of them is above 0.
        places: whether items carry their position, under `PATCH_POSITIONS`.
    """

    patch_size: tuple[int, ...]
    patches_per_image: int
    seed: int
    augment: Augment | None = None
    device_seeds: bool = False
    object_patches: float = 0.0
    foreground_patches: float = 0.0
    cost_patches: float = 0.0
    places: bool = False

    def make_center_sampler(self, image: PreparedPair) -> PatchCenterSampler | None:
        """Make the sampler of patch centers of an image, which is read for that; None if patches lie anywhere."""
        if self.object_patches:
            return ObjectSampler(find_object_boxes(image.target, image.shape), self.object_patches)
        if self.foreground_patches:
            return measure_weights(image.target, image.shape, self.foreground_patches, foreground=True)
        if self.cost_patches and image.cost is not None:
            return measure_weights(image.cost, image.shape, self.cost_patches, foreground=False)
        return None

    def finish(self, patch: Patch, specs: Sequence[PatchSpec]) -> Patch:
        """Augment a patch, and add its seeds for the device."""
        made = patch if self.augment is None else self.augment(patch, [spec.seed for spec in specs])
        if not self.device_seeds:
            return made
        return made | {DEVICE_SEEDS: torch.tensor([spec.device_seed for spec in specs])}


class RandomPatches(Dataset[Patch]):
    """Random patches of training pairs.

    An item depends only on its (epoch, index), as from `EpochSampler`: not on the number of workers, nor on earlier items. A
    plain index is one of epoch 0.
    """

    def __init__(
        self, images: Sequence[PreparedPair], sampling: PatchSampling, rotation: ImageRotation | None = None
    ) -> None:
        """Initialize; with a `rotation`, only some images are available at a time, and center samplers are made when needed."""
        self._images = tuple(images)
        self._sampling = sampling
        self._rotation = rotation or ImageRotation(len(images), 1, 1, sampling.seed)
        self._reader = RegionReader()
        self._round: int | None = None
        self._members: tuple[int, ...] = ()
        self._center_samplers: dict[int, PatchCenterSampler | None] = {}
        if self._rotation.size == len(images):
            self._enter(0)
            self._center_samplers = {
                number: sampling.make_center_sampler(image) for number, image in enumerate(images)
            }

    def __len__(self) -> int:
        return self._rotation.size * self._sampling.patches_per_image

    def __getitem__(self, item: Item | int) -> Patch:
        epoch, index, hard = _parse_item(item, len(self))
        how = self._sampling
        self._enter(self._rotation.find_round(epoch))
        number, center = hard or (self._members[index // how.patches_per_image], None)
        image = self._images[number]
        if number not in self._center_samplers:
            self._center_samplers[number] = how.make_center_sampler(image)
        spec = sample_patch(
            image.shape, how.patch_size, how.seed, epoch, index, self._center_samplers[number], center
        )
        patch = how.finish(_read_pair(self._reader, image, spec.corner, how.patch_size), [spec])
        return patch | {PATCH_POSITIONS: torch.tensor([number, *spec.corner])} if how.places else patch

    def _enter(self, number: int) -> None:
        if number == self._round:
            return
        members = self._rotation.members(number)
        if self._round is not None and members != self._members:
            self._reader.forget()
            self._center_samplers.clear()
        self._round, self._members = number, members


class UnpairedPatches(Dataset[Patch]):
    """Random patches of inputs, each with an independent random patch of the targets.

    Items depend only on their (epoch, index), as in `RandomPatches`. An epoch has `patches_per_image` for each image of
    the side that has more.
    """

    def __init__(
        self, inputs: Sequence[PreparedImage], targets: Sequence[PreparedImage], sampling: PatchSampling
    ) -> None:
        self._sides = {"input": tuple(inputs), "target": tuple(targets)}
        self._sampling = sampling
        self._reader = RegionReader()

    def __len__(self) -> int:
        return max(map(len, self._sides.values())) * self._sampling.patches_per_image

    def __getitem__(self, item: Item | int) -> Patch:
        epoch, index, _ = _parse_item(item, len(self))
        how = self._sampling
        patch: Patch = {}
        specs = []
        for stream, (side, images) in enumerate(self._sides.items()):
            shapes = [image.shape for image in images]
            number, spec = sample_unpaired_patch(shapes, how.patch_size, stream, how.seed, epoch, index)
            patch[side] = _read(self._reader, images[number].image, spec.corner, how.patch_size)
            specs.append(spec)
        return how.finish(patch, specs)


class GridPatches(Dataset[Patch]):
    """Grid of patches that cover each validation image; see `placement.list_grid_corners`."""

    def __init__(self, images: Sequence[PreparedPair], patch_size: Sequence[int]) -> None:
        self._patch_size = tuple(patch_size)
        self._places = [
            (image, corner) for image in images for corner in list_grid_corners(image.shape, patch_size)
        ]
        self._reader = RegionReader()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Patch:
        image, corner = self._places[index]
        return _read_pair(self._reader, image, corner, self._patch_size)


class EpochSampler(Sampler[Item]):
    """Sampler of all indices in the random order of an epoch, each with the epoch, and the center if it is a hard patch.

    Lightning calls `set_epoch` before each epoch, also with several devices; other training loops have to call it, or
    every epoch is the first.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        before: Callable[[int], None] | None = None,
        hard: LossMap | None = None,
    ) -> None:
        """Initialize.

        Args:
            count: items of an epoch.
            seed: the recipe's.
            before: called with the epoch when it begins.
            hard: map of losses, from which the centers of hard patches are sampled.
        """
        self._count = count
        self._seed = seed
        self._before = before
        self._loss_map = hard
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        epoch = self._epoch
        if self._before is not None:
            self._before(epoch)
        hard = {} if self._loss_map is None else self._loss_map.sample_centers(epoch, self._count)
        order = shuffle_epoch(self._count, self._seed, epoch)
        return ((epoch, index, hard[index]) if index in hard else (epoch, index) for index in order)


def _parse_item(item: Item | int, count: int) -> tuple[int, int, PatchCenter | None]:
    epoch, index, *place = item if isinstance(item, tuple) else (0, item)
    if not 0 <= index < count:
        raise IndexError(index)
    return epoch, index, place[0] if place else None


def _read_pair(
    reader: RegionReader, image: PreparedPair, corner: Sequence[int], size: Sequence[int]
) -> Patch:
    kinds = {"input": image.input, "target": image.target, "cost": image.cost}
    return {kind: _read(reader, stored, corner, size) for kind, stored in kinds.items() if stored is not None}


def _read(reader: RegionReader, image: StoredImage, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    return torch.from_numpy(reader.read(image, corner, size))
