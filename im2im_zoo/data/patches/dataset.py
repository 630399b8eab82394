"""torch datasets of patches of preprocessed images, and the sampler that tells them the epoch. Knows no Lightning."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from im2im_zoo.data.cache.preprocess import Prepared, PreparedImage
from im2im_zoo.data.cache.rounds import Rounds
from im2im_zoo.data.cache.stored import Reader, Stored
from im2im_zoo.data.patches.hard_places import HardPlace, HardPlaces
from im2im_zoo.data.patches.objects import boxes_of
from im2im_zoo.data.patches.patches import (
    Aim,
    Draw,
    Objects,
    draw_lone_patch,
    draw_patch,
    grid,
    order_of_epoch,
)
from im2im_zoo.data.patches.weights import weights_of

Patch = dict[str, Tensor]
Augment = Callable[[Patch, Sequence[int]], Patch]
"""A patch and seeds: one for all its images, or one for each if they have nothing to do with each other."""

DEVICE_SEEDS = "device_seeds"
"""Where a training batch keeps the seeds of what is done on the device, (batch, one or one an image)."""

PLACES = "places"
"""Where it keeps the number of the image and the first voxel of each patch, (batch, 1 + axis), where hard ones are looked for."""

Item = tuple[int, int] | tuple[int, int, HardPlace]
"""The epoch and the number of a patch in it, and where it is, if it is to be at a hard place."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How patches are drawn from training images.

    Attributes:
        patch_size: voxels along the space axes.
        patches_per_image: in an epoch.
        seed: the recipe's.
        augment: what is done to each patch.
        device_seeds: whether items carry the seeds of what is done to them later, under `DEVICE_SEEDS`.
        object_patches, foreground_patches, cost_patches: the share of patches that are drawn around an object of the target,
            its foreground, or a place that costs much; at most one of them is above 0.
        places: whether items carry where they are, under `PLACES`.
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

    def aim(self, image: Prepared) -> Aim | None:
        """What some patches of an image are drawn around; it is read for that."""
        if self.object_patches:
            return Objects(boxes_of(image.target, image.shape), self.object_patches)
        if self.foreground_patches:
            return weights_of(image.target, image.shape, self.foreground_patches, foreground=True)
        if self.cost_patches and image.cost is not None:
            return weights_of(image.cost, image.shape, self.cost_patches, foreground=False)
        return None

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

    def __init__(self, images: Sequence[Prepared], drawing: Drawing, rounds: Rounds | None = None) -> None:
        """Where only some images are at hand at a time, `rounds` says which; what they are aimed at is then read as they come."""
        self._images = tuple(images)
        self._drawing = drawing
        self._rounds = rounds or Rounds(len(images), 1, 1, drawing.seed)
        self._reader = Reader()
        self._round: int | None = None
        self._members: tuple[int, ...] = ()
        self._aims: dict[int, Aim | None] = {}
        if self._rounds.size == len(images):
            self._enter(0)
            self._aims = {number: drawing.aim(image) for number, image in enumerate(images)}

    def __len__(self) -> int:
        return self._rounds.size * self._drawing.patches_per_image

    def __getitem__(self, item: Item | int) -> Patch:
        epoch, index, hard = _item(item, len(self))
        how = self._drawing
        self._enter(self._rounds.round_of(epoch))
        number, middle = hard or (self._members[index // how.patches_per_image], None)
        image = self._images[number]
        if number not in self._aims:
            self._aims[number] = how.aim(image)
        draw = draw_patch(image.shape, how.patch_size, how.seed, epoch, index, self._aims[number], middle)
        patch = how.finish(_read_pair(self._reader, image, draw.corner, how.patch_size), [draw])
        return patch | {PLACES: torch.tensor([number, *draw.corner])} if how.places else patch

    def _enter(self, number: int) -> None:
        if number == self._round:
            return
        members = self._rounds.members(number)
        if self._round is not None and members != self._members:
            self._reader.forget()
            self._aims.clear()
        self._round, self._members = number, members


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
        self._reader = Reader()

    def __len__(self) -> int:
        return max(map(len, self._sides.values())) * self._drawing.patches_per_image

    def __getitem__(self, item: Item | int) -> Patch:
        epoch, index, _ = _item(item, len(self))
        how = self._drawing
        patch: Patch = {}
        draws = []
        for stream, (side, images) in enumerate(self._sides.items()):
            shapes = [image.shape for image in images]
            number, draw = draw_lone_patch(shapes, how.patch_size, stream, how.seed, epoch, index)
            patch[side] = _read(self._reader, images[number].image, draw.corner, how.patch_size)
            draws.append(draw)
        return how.finish(patch, draws)


class GridPatches(Dataset[Patch]):
    """Patches that cover each validation image; see `patches.grid`. Nothing is random."""

    def __init__(self, images: Sequence[Prepared], patch_size: Sequence[int]) -> None:
        self._patch_size = tuple(patch_size)
        self._places = [(image, corner) for image in images for corner in grid(image.shape, patch_size)]
        self._reader = Reader()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Patch:
        image, corner = self._places[index]
        return _read_pair(self._reader, image, corner, self._patch_size)


class EpochSampler(Sampler[Item]):
    """All indices in an order of the epoch, each with the epoch, so that worker processes know it; with their place, if it is hard.

    Lightning calls `set_epoch` before each epoch, also through the wrapper that it makes for several devices;
    a loop of one's own has to call it, else every epoch is the first.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        before: Callable[[int], None] | None = None,
        hard: HardPlaces | None = None,
    ) -> None:
        """`before` is called with the epoch as it begins; `hard` says then which patches are drawn where."""
        self._count = count
        self._seed = seed
        self._before = before
        self._hard = hard
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
        hard = {} if self._hard is None else self._hard.draw(epoch, self._count)
        order = order_of_epoch(self._count, self._seed, epoch)
        return ((epoch, index, hard[index]) if index in hard else (epoch, index) for index in order)


def _item(item: Item | int, count: int) -> tuple[int, int, HardPlace | None]:
    epoch, index, *place = item if isinstance(item, tuple) else (0, item)
    if not 0 <= index < count:
        raise IndexError(index)
    return epoch, index, place[0] if place else None


def _read_pair(reader: Reader, image: Prepared, corner: Sequence[int], size: Sequence[int]) -> Patch:
    kinds = {"input": image.input, "target": image.target, "cost": image.cost}
    return {kind: _read(reader, stored, corner, size) for kind, stored in kinds.items() if stored is not None}


def _read(reader: Reader, image: Stored, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    return torch.from_numpy(reader.read(image, corner, size))
