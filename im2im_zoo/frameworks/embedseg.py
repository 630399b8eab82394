"""Instance segmentation by embeddings: each voxel points at the centre of its object. Grouping the voxels is not done here."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
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
    """How the network's output is made into maps, see `EmbeddingMaps`."""

    voxel_size: list[float]
    grid: float
    sigma: float
    isotropic: bool


class EmbedSeg(Framework):
    """EmbedSeg (Lalit et al. 2021, arXiv:2101.10033; 2022, doi:10.1016/j.media.2022.102523), in 2D and 3D.

    After Neven et al. 2019 (arXiv:1906.11109): each voxel has an offset to the centre of its object, a sigma and a seediness;
    `losses.embedding.embedding_terms` has the loss. The target are instance labels, and centres are computed of those of
    each patch as it comes, augmented and cut, without voxels whose cost is 0: any augmentation may be used that keeps whole
    numbers. The package gives dense maps, `networks.embedding_maps.EmbeddingMaps`, which `grouping.embedseg.group` makes objects of.

    As in the paper are the loss, its weights, tanh, the exponential of ten times sigma, sigmoid, and medoid or centroid as
    centre. Different: an offset reaches `grid` at most instead of the length of an image of 1024 pixels, and sigma begins at
    `sigma` by a factor instead of by the weights of the last layer, so that any network can be used; patches are drawn as
    the recipe's `data` says instead of stored beforehand.

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
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.

    Raises:
        TrainingError: lengths that are none.
    """

    uses_cost = True
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
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
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
        self._optimizer, self._scheduler = optimizer, scheduler
        self._scheduler_interval = scheduler_interval

    def terms(self, raw: Tensor, target: Tensor, cost: Tensor | None) -> Terms:
        """The terms of the loss of a batch, before they are weighted.

        Args:
            raw: the network's output.
            target: instance labels, (batch, 1, (z,) y, x).
            cost: of the same shape, how much a voxel counts; one with 0 belongs to no object and has no gradient.
        Raises:
            TrainingError: a target that is no instance labels.
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
        """The loss of one batch."""
        output, target, cost = self.network(batch["input"]), batch["target"], batch.get("cost")
        terms = self.terms(output, target, cost)
        loss, size = self.finite(self._loss(terms)), len(target)
        self.rate_patches(
            size,
            lambda part: self._loss(
                self.terms(output[part], target[part], None if cost is None else cost[part])
            ),
        )
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=size)
        for name in ("instance", "smoothness", "seed"):
            self.log(f"train_{name}", getattr(terms, name), on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, and the IoU of each object with what the Gaussian around its true centre selects."""
        terms = self.terms(self.network(batch["input"]), batch["target"], batch.get("cost"))
        loss = self.finite(self._loss(terms), "val_loss")
        self.log("val_loss", loss, batch_size=len(batch["input"]), sync_dist=True)
        self.iou.update(terms.iou)
        self.log("val_iou", self.iou, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def output_channels(self, target_channels: int) -> int:
        """An offset and a sigma along each axis, and the seediness."""
        return 2 * len(self._maps["voxel_size"]) + 1

    def exported_network(self) -> nn.Module:
        """The network, and its output as maps."""
        return EmbeddingMaps(self.network, **self._maps)

    def exported_architecture(self, network: Component) -> Component:
        """`EmbeddingMaps` of the recipe's network."""
        named = {"callable": network.callable, "kwargs": network.kwargs}
        callable_path = f"{EmbeddingMaps.__module__}.{EmbeddingMaps.__name__}"
        return Component(callable=callable_path, kwargs={"network": named, **self._maps})

    def _loss(self, terms: Terms) -> Tensor:
        each = torch.stack([terms.instance, terms.smoothness, terms.seed])
        return (each * each.new_tensor(self._weights)).sum()

    def _precision(self, raw: Tensor) -> Tensor:
        return torch.exp(2 * STEEPNESS * raw) / (2 * self._maps["sigma"] ** 2)
