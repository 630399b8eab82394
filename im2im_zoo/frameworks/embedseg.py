"""EmbedSeg: instance segmentation by embeddings, in which each voxel points at the centre of its object.

The voxels are grouped into objects by `instances.methods`.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerOptions
from im2im_zoo.frameworks.supervision import check_instance_labels
from im2im_zoo.losses.embedding import (
    Embedding,
    Terms,
    centroids,
    coordinates_of,
    embedding_terms,
    medoids,
    objects_of,
)
from im2im_zoo.networks.embedding_maps import STEEPNESS, EmbeddingMaps
from im2im_zoo.recipe.components import Component


class _Maps(TypedDict):
    """Arguments of `EmbeddingMaps`."""

    voxel_size: list[float]
    grid: float
    sigma: float
    isotropic: bool


class EmbedSeg(Framework):
    """EmbedSeg (Lalit et al. 2021, arXiv:2101.10033; 2022, doi:10.1016/j.media.2022.102523), in 2D and 3D.

    After Neven et al. 2019 (arXiv:1906.11109): each voxel has an offset to the centre of its object, a sigma and a seediness;
    `losses.embedding.embedding_terms` is the loss. The target is instance labels. The centres are computed from the labels
    of each augmented patch, without voxels of weight 0, so any augmentation that keeps whole numbers can be used. The
    package outputs dense maps, `networks.embedding_maps.EmbeddingMaps`, which are grouped into objects after that.

    The same as in the paper: the loss, its weights, tanh, the exponential of ten times sigma, sigmoid, and medoid or
    centroid as centre. Different: an offset is at most `grid` instead of the length of an image of 1024 pixels, and sigma
    starts at `sigma` by a factor instead of by the weights of the last layer, so that any network can be used; patches are
    drawn as the recipe's `data` says instead of being stored beforehand.

    Args:
        network: maps (batch, channel, (z,) y, x) to channels of the same size: an offset along each axis, the sigmas, the
            seediness; 5 in 2D and 7 in 3D, 4 and 5 with one sigma.
        voxel_size: along (z,) y, x, in micrometres, or relative (1 for the shortest), which is then the unit of lengths.
        grid: the length that an offset cannot exceed along any axis: more than the farthest an object reaches from its
            centre.
        sigma: the length where the network's sigma is 0; about half the radius of an object.
        isotropic: one sigma, a length, for all axes.
        centre: "centroid", the mean position, or "medoid", the voxel with the least distances to the others of the object,
            which lies within it; see `losses.embedding`.
        instance_weight, smoothness_weight, seed_weight: of the loss's terms.
        foreground_weight: how much more the seed term counts in objects than in the background.
        options: see `OptimizerOptions`.

    Raises:
        TrainingError: a length that is not above 0, or another number of axes or centre.
    """

    cite = Citation(
        "Lalit et al. 2022: EmbedSeg: Embedding-based Instance Segmentation for Biomedical Microscopy Data",
        "10.1016/j.media.2022.102523",
    )
    uses_weight_maps = True
    needs_instance_labels = True
    can_rate_patches = True

    def __init__(
        self,
        network: nn.Module,
        voxel_size: Sequence[float],
        grid: float,
        sigma: float,
        isotropic: bool = False,
        centre: Literal["centroid", "medoid"] = "centroid",
        instance_weight: float = 1.0,
        smoothness_weight: float = 10.0,
        seed_weight: float = 1.0,
        foreground_weight: float = 10.0,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(**options)
        if len(voxel_size) not in (2, 3) or min(*voxel_size, grid, sigma) <= 0:
            raise TrainingError(
                f"framework.kwargs: voxel_size is {list(voxel_size)}, grid {grid}, sigma {sigma}; give a voxel size along "
                "each of (z,) y, x, and lengths above 0 in its unit"
            )
        if centre not in ("centroid", "medoid"):
            raise TrainingError(f"framework.kwargs.centre is {centre!r}; give centroid or medoid")
        self.network = network
        self.iou = MeanMetric()
        self._maps = _Maps(voxel_size=list(voxel_size), grid=grid, sigma=sigma, isotropic=isotropic)
        self._sigmas = 1 if isotropic else len(voxel_size)
        self._centre = centre
        self._weights = (instance_weight, smoothness_weight, seed_weight)
        self._foreground_weight = foreground_weight

    def terms(self, raw: Tensor, target: Tensor, cost: Tensor | None) -> Terms:
        """Return the terms of the loss of a batch, not yet weighted.

        Args:
            raw: the network's output.
            target: instance labels, (batch, 1, (z,) y, x).
            cost: weight of each voxel, of the same shape; a voxel of weight 0 belongs to no object and has no gradient.

        Raises:
            TrainingError: the target is not instance labels.
        """
        check_instance_labels(target, "EmbedSeg")
        labels = target[:, 0].flatten(1)
        weight = torch.ones_like(labels) if cost is None else cost[:, 0].flatten(1)
        axes = len(self._maps["voxel_size"])
        offsets, raw_sigma, seediness = torch.split(raw.float().flatten(2), [axes, self._sigmas, 1], 1)
        coordinates = coordinates_of(target.shape[2:], self._maps["voxel_size"], offsets)
        places = coordinates + self._maps["grid"] * torch.tanh(offsets)
        embedding = Embedding(places, raw_sigma, torch.sigmoid(seediness[:, 0]))
        objects = objects_of(labels, weight)
        centres = (medoids if self._centre == "medoid" else centroids)(objects, coordinates)
        return embedding_terms(embedding, objects, centres, weight, self._precision, self._foreground_weight)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        output, target, cost = self.network(batch["input"]), batch["target"], batch.get("cost")
        terms = self.terms(output, target, cost)
        loss, size = self.finite(self._loss(terms)), len(target)
        self.rate_patches(
            size,
            lambda part: self._loss(
                self.terms(output[part], target[part], None if cost is None else cost[part])
            ),
        )
        names = ("instance", "smoothness", "seed")
        self.log_training(loss, size, {f"train_{name}": getattr(terms, name) for name in names})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, and the IoU of each object with the mask that the Gaussian around its true centre selects."""
        terms = self.terms(self.network(batch["input"]), batch["target"], batch.get("cost"))
        self.log_validation(self._loss(terms), len(batch["input"]))
        self.iou.update(terms.iou)
        self.log("val_iou", self.iou, on_step=False, on_epoch=True)

    def output_channels(self, target_channels: int) -> int:
        """Return the number of maps: an offset and a sigma along each axis, and the seediness."""
        return 2 * len(self._maps["voxel_size"]) + 1

    def exported_network(self) -> nn.Module:
        """Return the network followed by `EmbeddingMaps`."""
        return EmbeddingMaps(self.network, **self._maps)

    def exported_architecture(self, network: Component) -> Component:
        """Return `EmbeddingMaps` of the recipe's network."""
        named = {"callable": network.callable, "kwargs": network.kwargs}
        callable_path = f"{EmbeddingMaps.__module__}.{EmbeddingMaps.__name__}"
        return Component(callable=callable_path, kwargs={"network": named, **self._maps})

    def _loss(self, terms: Terms) -> Tensor:
        each = torch.stack([terms.instance, terms.smoothness, terms.seed])
        return (each * each.new_tensor(self._weights)).sum()

    def _precision(self, raw: Tensor) -> Tensor:
        return torch.exp(2 * STEEPNESS * raw) / (2 * self._maps["sigma"] ** 2)
