"""EmbedSeg's loss: the papers' formulas, object by object and voxel by voxel, against what is computed for all at once."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from im2im_zoo.losses.embedding import (
    Embedding,
    Terms,
    centroids,
    coordinates_of,
    embedding_terms,
    medoids,
    objects_of,
)
from im2im_zoo.losses.lovasz import LovaszHinge

FOREGROUND_WEIGHT = 10.0


def precision(raw: Tensor) -> Tensor:
    return torch.exp(10 * raw) / 18  # a sigma of 3 where it is 0


def sample(shape: Sequence[int], sigmas: int, seed: int = 0) -> tuple[Embedding, Tensor, Tensor, Tensor]:
    """Random maps of two images, labels (an object may be anywhere), coordinates and weights of 0, 1 and 2."""
    random = torch.Generator().manual_seed(seed)
    voxels = int(torch.tensor(shape).prod())
    coordinates = coordinates_of(shape, [2.0, 1.0, 1.0][-len(shape) :], torch.zeros(()).double())
    labels = torch.randint(-2, 4, (2, voxels), generator=random).clamp(min=0)
    labels[1, labels[1] == 2] = 7
    weight = torch.randint(0, 3, (2, voxels), generator=random).double()
    places = coordinates + 2 * torch.randn(2, len(shape), voxels, generator=random).double()
    raw = 0.3 * torch.randn(2, sigmas, voxels, generator=random).double()
    seediness = torch.rand(2, voxels, generator=random).double()
    embedding = Embedding(*(t.requires_grad_() for t in (places, raw, seediness)))
    return embedding, labels, coordinates, weight


def by_formula(embedding: Embedding, labels: Tensor, coordinates: Tensor, weight: Tensor) -> Terms:
    """The loss as it is written: a loop over images and objects, each of which sees every voxel."""
    instance, smoothness, seed, ious = [], [], [], []
    for image in range(len(labels)):
        heed, hinges, spreads = weight[image], [], []
        wanted = torch.zeros_like(heed)
        for label in labels[image][(labels[image] > 0) & (heed > 0)].unique():
            inside = (labels[image] == label) & (heed > 0)
            centre = coordinates[:, inside].mean(1, keepdim=True)
            raw = embedding.raw_sigma[image][:, inside]
            mean = (heed[inside] * raw).sum(1, keepdim=True) / heed[inside].sum()
            distance = precision(mean) * (embedding.places[image] - centre) ** 2
            gaussian = torch.exp(-distance.sum(0))
            logits, mask = (2 * gaussian - 1).view(1, 1, -1), inside.double().view(1, 1, -1)
            hinges.append(LovaszHinge()(logits, mask, weight=heed.view(1, 1, -1)))
            spreads.append((heed[inside] * (raw - mean.detach()) ** 2).sum(1).mean() / heed[inside].sum())
            wanted[inside] = gaussian.detach()[inside]
            both, either = (heed[m].sum() for m in ((gaussian > 0.5) & inside, (gaussian > 0.5) | inside))
            ious.append(both / either)
        instance.append(torch.stack(hinges).mean())
        smoothness.append(torch.stack(spreads).mean())
        factor = torch.where(labels[image] > 0, FOREGROUND_WEIGHT, 1.0) * heed
        seed.append((factor * (embedding.seediness[image] - wanted) ** 2).sum())
    mean_seed = torch.stack(seed).sum() / weight.sum()
    return Terms(torch.stack(instance).mean(), torch.stack(smoothness).mean(), mean_seed, torch.stack(ious))


def at_once(embedding: Embedding, labels: Tensor, coordinates: Tensor, weight: Tensor) -> Terms:
    objects = objects_of(labels, weight)
    centres = centroids(objects, coordinates)
    return embedding_terms(embedding, objects, centres, weight, precision, FOREGROUND_WEIGHT)


def total(terms: Terms) -> Tensor:
    return terms.instance + terms.smoothness + terms.seed


@pytest.mark.parametrize(("shape", "sigmas"), [((9, 8), 2), ((9, 8), 1), ((3, 6, 5), 3), ((3, 6, 5), 1)])
def test_all_objects_at_once_have_the_loss_of_the_formula(shape: tuple[int, ...], sigmas: int) -> None:
    values = sample(shape, sigmas)
    expected, found = by_formula(*values), at_once(*values)
    for name in ("instance", "smoothness", "seed", "iou"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
    maps = (values[0].places, values[0].raw_sigma, values[0].seediness)
    gradients = [torch.autograd.grad(total(terms), maps) for terms in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_far_voxels_are_left_out_without_a_difference_that_float32_has() -> None:
    embedding, labels, coordinates, weight = sample((40, 40), 2)
    labels = torch.zeros_like(labels)
    labels.view(2, 40, 40)[:, 3:7, 3:7] = 1
    labels.view(2, 40, 40)[:, 30:36, 20:30] = 2
    terms = [loss(embedding, labels, coordinates, weight) for loss in (at_once, by_formula)]
    assert terms[0].instance.item() == pytest.approx(terms[1].instance.item(), abs=1e-7)


def test_an_excluded_voxel_has_no_gradient_at_all_and_belongs_to_nothing() -> None:
    embedding, labels, coordinates, weight = sample((9, 8), 2)
    maps = (embedding.places, embedding.raw_sigma, embedding.seediness)
    gradients = torch.autograd.grad(total(at_once(embedding, labels, coordinates, weight)), maps)
    excluded = weight == 0
    assert excluded.any()
    for gradient in gradients:
        of_voxel = gradient.abs() if gradient.ndim == 2 else gradient.abs().sum(1)
        assert (of_voxel[excluded] == 0).all()
        assert (of_voxel[~excluded & (labels > 0)] > 0).any()
    other = torch.where(excluded, 9, labels)
    assert total(at_once(embedding, other, coordinates, weight)) == total(
        at_once(embedding, labels, coordinates, weight)
    )


def perfect(labels: Tensor, coordinates: Tensor) -> Embedding:
    objects = objects_of(labels, torch.ones_like(labels).double())
    centres = centroids(objects, coordinates)
    places = torch.where(
        (objects.number >= 0).unsqueeze(1), centres[objects.number].movedim(-1, 1), coordinates + 1000.0
    )
    raw = torch.full((len(labels), 1, labels.shape[1]), 0.5).double()
    return Embedding(places, raw, (labels > 0).double())


def test_perfect_maps_have_no_loss() -> None:
    labels = torch.zeros(1, 4, 20, 20, dtype=torch.long)
    labels[:, 1:3, 2:8, 2:8], labels[:, 1:3, 2:8, 8:15], labels[:, 0, 15:, :4] = 1, 2, 3
    labels[:, 0, 15:, 10:12] = labels[:, 0, 15:, 17:19] = 4  # of two parts
    coordinates = coordinates_of((4, 20, 20), (2.0, 1.0, 1.0), torch.zeros(()).double())
    flat = labels.flatten(1)
    terms = at_once(perfect(flat, coordinates), flat, coordinates, torch.ones_like(flat).double())
    assert total(terms).item() == pytest.approx(0, abs=1e-5)
    assert terms.iou.tolist() == pytest.approx([1.0] * 4)


def test_an_image_without_objects_counts_as_one_without_instance_loss() -> None:
    embedding, labels, coordinates, weight = sample((9, 8), 2)
    both = at_once(embedding, labels, coordinates, weight)
    labels[1] = 0
    one = at_once(embedding, labels, coordinates, weight)
    alone = Embedding(embedding.places[:1], embedding.raw_sigma[:1], embedding.seediness[:1])
    first = at_once(alone, labels[:1], coordinates, weight[:1])
    assert one.instance.item() == pytest.approx(first.instance.item() / 2)
    assert one.instance < both.instance
    labels[0] = 0
    none = at_once(embedding, labels, coordinates, weight)
    assert none.instance == none.smoothness == 0
    assert none.seed > 0


def centres_of(picture: Tensor, voxel_size: Sequence[float]) -> tuple[list[list[float]], list[list[float]]]:
    coordinates = coordinates_of(picture.shape[1:], voxel_size, torch.zeros(()))
    objects = objects_of(picture.flatten(1), torch.ones(picture.flatten(1).shape))
    return centroids(objects, coordinates).tolist(), medoids(objects, coordinates).tolist()


def test_centroid_and_medoid_of_a_corner_and_of_a_row() -> None:
    picture = torch.tensor([[[3, 3, 3, 3], [3, 0, 0, 0], [3, 0, 0, 5], [3, 0, 0, 0]]])
    # To the others of the corner: sqrt 2 + ... from (0, 1) or (1, 0) is less than 1 + 2 + 3 + 1 + 2 + 3 = 12 from (0, 0):
    # from (0, 1): 1 + 1 + 2 along the row, sqrt 2 + sqrt 5 + sqrt 10 = 6.81 down, 10.81 in all.
    centroid, medoid = centres_of(picture, (1.0, 1.0))
    assert centroid[0] == pytest.approx([6 / 7, 6 / 7])
    assert medoid[0] in ([0.0, 1.0], [1.0, 0.0])
    assert centroid[1] == medoid[1] == [2.0, 3.0]


def test_the_medoid_is_not_the_voxel_nearest_the_centroid() -> None:
    picture = torch.zeros(1, 1, 20, dtype=torch.long)
    picture[0, 0, [0, 1, 2, 9, 19]] = 1
    centroid, medoid = centres_of(picture, (1.0, 1.0))
    assert centroid[0] == pytest.approx([0, 6.2])  # next to which is 9
    assert medoid == [[0.0, 2.0]]  # the median


def test_centres_are_lengths() -> None:
    picture = torch.zeros(1, 3, 1, 4, dtype=torch.long)
    picture[0, :, 0, 0] = picture[0, 0, 0, :] = 1
    centroid, medoid = centres_of(picture, (10.0, 1.0, 0.5))
    assert centroid[0] == pytest.approx([5.0, 0.0, 0.5])
    # In voxels it is [0, 0, 0]. Here the row's are close to each other: from 0.5 it is 0.5 + 0.5 + 1 along it.
    assert medoid == [[0.0, 0.0, 0.5]]


def test_an_object_is_one_in_each_image_and_however_many_parts_it_has() -> None:
    labels = torch.tensor([[4, 0, 4, 2], [4, 0, 0, 0]])
    objects = objects_of(labels, torch.ones(2, 4))
    assert objects.number.tolist() == [[1, -1, 1, 0], [2, -1, -1, -1]]
    assert objects.image.tolist() == [0, 0, 1]
    coordinates = coordinates_of((4,), (1.0,), torch.zeros(()))
    assert centroids(objects, coordinates).flatten().tolist() == [3.0, 1.0, 0.0]
