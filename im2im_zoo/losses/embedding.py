"""Embedding loss of EmbedSeg, computed for all objects of a batch at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from im2im_zoo.losses.segments import lovasz_of_segments, mean_of_segments, sum_of_segments

# exp(-_FARTHEST) is below the rounding of float32 (2^-24); such a voxel changes the Lovász hinge by less than that.
_FARTHEST = 16.6
# Distances held in memory at once in the search for voxels near objects.
_PAIRS = 2**24
# Above any label that float32 can hold.
_LABELS = 2**32


@dataclass(frozen=True, slots=True)
class Embedding:
    """Output of the network for each voxel, in any one unit of length.

    Attributes:
        places: (batch, axis, voxel), predicted centre of the voxel's object.
        raw_sigma: (batch, 1 or axis, voxel), ideally equal within an object; `precision` converts them to lengths.
        seediness: (batch, voxel), 0 to 1.
    """

    places: Tensor
    raw_sigma: Tensor
    seediness: Tensor


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of a batch, numbered consecutively, image by image.

    Attributes:
        number: (batch, voxel), the voxel's object from 0, or -1.
        image: (object,), number of its image in the batch.
    """

    number: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def mean_of_images(self, values: Tensor) -> Tensor:
        """Return the mean over the objects of an image, then over the images; an image without objects counts 0.

        Args:
            values: (object,).
        """
        per_image = torch.bincount(self.image, minlength=len(self.number))
        return (values / per_image[self.image]).sum() / len(self.number)


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of the loss, scalars, see `embedding_terms`; and the IoU of each object with the mask of its Gaussian."""

    instance: Tensor
    smoothness: Tensor
    seed: Tensor
    iou: Tensor


def objects_of(labels: Tensor, weight: Tensor) -> Objects:
    """Number the objects of a batch, without voxels of weight 0.

    Args:
        labels: (batch, voxel), whole numbers, 0 for background; an object may have several parts.
        weight: (batch, voxel).
    """
    belongs = (labels > 0) & (weight > 0)
    images = torch.arange(len(labels), device=labels.device).unsqueeze(1).expand_as(belongs)[belongs]
    # One number for image and label: torch.unique of pairs is a hundred times slower.
    keys = images * _LABELS + labels[belongs].long()
    found, inverse = torch.unique(keys, return_inverse=True)
    number = torch.full(labels.shape, -1, dtype=torch.long, device=labels.device)
    number[belongs] = inverse
    return Objects(number, found // _LABELS)


def centroids(objects: Objects, coordinates: Tensor) -> Tensor:
    """Return the mean position of each object's voxels, (object, axis); it may lie outside the object.

    Args:
        coordinates: (axis, voxel).
    """
    belongs = objects.number >= 0
    positions = coordinates.T.expand(len(belongs), -1, -1)[belongs]
    return mean_of_segments(positions, objects.number[belongs], len(objects))


def medoids(objects: Objects, coordinates: Tensor) -> Tensor:
    """Return the voxel of each object with the least sum of distances to its other voxels, (object, axis).

    The time grows with the square of an object's voxels.

    Args:
        coordinates: (axis, voxel).
    """
    found = []
    for number, image in enumerate(objects.image.tolist()):
        positions = coordinates.T[objects.number[image] == number]
        parts = torch.split(positions, max(_PAIRS // positions.numel(), 1))
        sums = [torch.linalg.vector_norm(part[:, None] - positions, dim=-1).sum(1) for part in parts]
        found.append(positions[torch.cat(sums).argmin()])
    return torch.stack(found) if found else coordinates.new_zeros(0, len(coordinates))


def embedding_terms(
    embedding: Embedding,
    objects: Objects,
    centres: Tensor,
    weight: Tensor,
    precision: Callable[[Tensor], Tensor],
    foreground_weight: float,
) -> Terms:
    """Compute the terms of the loss of Neven et al. 2019 (arXiv:1906.11109, sections 3.1 and 3.2) as in EmbedSeg.

    - instance: the Lovász hinge of each object's Gaussian, exp(-sum((place - centre)² / (2 sigma²))), as a soft mask of it among
      all voxels of the image; sigma is that of the object's mean of `raw_sigma`.
    - smoothness: the mean squared difference of `raw_sigma` from its mean over the object; the mean is a constant.
    - seed: the squared difference of the seediness from the voxel's own object's Gaussian, a constant, and from 0 in the background.

    The first two are means over the objects of an image and then over the images. Voxels whose Gaussian is less than the
    rounding of float32 are left out of the first, object by object, and nothing else is: the result is that of all
    voxels to that rounding, while the memory grows with the objects' sizes instead of with objects times voxels.

    Args:
        centres: (object, axis).
        weight: (batch, voxel); a voxel of weight 0 has no gradient.
        precision: converts raw sigmas, (object, 1 or axis), to 1 / (2 sigma²).
        foreground_weight: how much more the seed term counts in objects than in the background.
    """
    belongs = objects.number >= 0
    number, count, counts = objects.number[belongs], len(objects), weight[belongs]
    raw = embedding.raw_sigma.movedim(1, -1)[belongs]
    means = mean_of_segments(raw, number, count, counts)
    spread = (raw - means.detach()[number]).square().mean(1, keepdim=True)
    smoothness = mean_of_segments(spread, number, count, counts).squeeze(1)
    sharpness = precision(means).expand_as(centres)
    near, voxels = _near(embedding.places.detach(), objects, centres, sharpness.detach(), weight > 0)
    places = embedding.places.movedim(1, -1).flatten(0, 1)[voxels]
    gaussians = torch.exp(-(sharpness[near] * (places - centres[near]).square()).sum(1))
    inside, near_weight = objects.number.flatten()[voxels] == near, weight.flatten()[voxels]
    # The hinge of the logit 2 g - 1: 1 - (2 g - 1) within, 1 + (2 g - 1) without.
    errors = 2 * torch.where(inside, 1 - gaussians, gaussians)
    hinge = lovasz_of_segments(errors, inside, near_weight, near, count)
    wanted = gaussians.new_zeros(belongs.numel())
    wanted[voxels[inside]] = gaussians.detach()[inside]
    seed_weight = weight * torch.where(belongs, foreground_weight, 1.0)
    squares = seed_weight * (embedding.seediness - wanted.view_as(seed_weight)).square()
    seed = squares.sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    return Terms(
        objects.mean_of_images(hinge),
        objects.mean_of_images(smoothness),
        seed,
        _iou(gaussians.detach() > 0.5, inside, near_weight, near, count),
    )


def _near(
    places: Tensor, objects: Objects, centres: Tensor, sharpness: Tensor, counted: Tensor
) -> tuple[Tensor, Tensor]:
    """Return pairs of an object and a voxel of its image that belongs to it, or whose Gaussian is not negligible.

    Returns:
        The number of the object, in ascending order, and of the voxel, from the start of the batch.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    size = places.shape[-1]
    for image in range(len(places)):
        members = (objects.image == image).nonzero().squeeze(1)
        for some in torch.split(members, max(_PAIRS // size, 1)):
            far = centres.new_zeros(len(some), size)
            for axis in range(centres.shape[1]):
                difference = places[image, axis] - centres[some, axis, None]
                far += sharpness[some, axis, None] * difference.square()
            close = (far < _FARTHEST) | (objects.number[image] == some[:, None])
            rows, voxels = (close & counted[image]).nonzero(as_tuple=True)
            pairs.append((some[rows], voxels + image * size))
    if not pairs:
        return objects.number.new_zeros(0), objects.number.new_zeros(0)
    near, voxels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return near, voxels


def _iou(found: Tensor, inside: Tensor, weight: Tensor, near: Tensor, count: int) -> Tensor:
    both = sum_of_segments(weight * (found & inside), near, count)
    either = sum_of_segments(weight * (found | inside), near, count)
    return both / either


def coordinates_of(shape: Sequence[int], voxel_size: Sequence[float], like: Tensor) -> Tensor:
    """Return the position of each voxel of an image of `shape`, (axis, voxel), in the unit of `voxel_size`, from 0."""
    along = [
        torch.arange(n, device=like.device) * float(size) for n, size in zip(shape, voxel_size, strict=True)
    ]
    return torch.stack(torch.meshgrid(*along, indexing="ij")).flatten(1).to(like.dtype)
