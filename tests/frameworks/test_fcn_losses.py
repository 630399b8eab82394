"""What a loss sees of a prediction: cost maps, class weights and deep supervision, on worked numbers."""

from collections.abc import Callable

import pytest
import torch
from monai.losses import DiceLoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.fcn import FCN
from im2im_zoo.frameworks.heteroscedastic import GaussianNLL
from im2im_zoo.frameworks.supervision import deep_loss, heads_of, weighted_loss
from im2im_zoo.losses.weighted import weighted_mean

# Said by Lightning of a step outside its trainer.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*self\.log")


class Neighbours(nn.Module):
    """A loss of each voxel and the next one along x, which takes a weight."""

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        each = (prediction - target) ** 2 + (prediction - target).roll(1, -1) ** 2
        return weighted_mean(each, weight)


LOSSES: dict[str, tuple[Callable[..., Tensor], int, int]] = {
    # The loss, and the channels of prediction and target.
    "squares": (nn.MSELoss(reduction="none"), 2, 2),
    "absolute": (nn.L1Loss(reduction="none"), 1, 1),
    "logits": (nn.BCEWithLogitsLoss(reduction="none"), 2, 2),
    "cross-entropy": (nn.CrossEntropyLoss(reduction="none"), 3, 3),
    "likelihood": (GaussianNLL(), 4, 2),
    "neighbours": (Neighbours(), 1, 1),
}


def image(*values: float) -> Tensor:
    """One image of one channel and one row."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("space", [(6, 7), (3, 4, 5)])
def test_voxels_of_cost_0_have_no_gradient_and_do_not_change_the_loss(
    name: str, space: tuple[int, ...]
) -> None:
    loss, outputs, targets = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, outputs, *space, generator=generator)
    target = torch.rand(2, targets, *space, generator=generator)
    cost = torch.randint(0, 3, (2, 1, *space), generator=generator).float()
    counts = (cost > 0).expand_as(prediction)

    def lossed(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        prediction = prediction.clone().requires_grad_()
        value = weighted_loss(loss, prediction, target, cost, None)
        [gradient] = torch.autograd.grad(value, prediction)
        return value.detach(), gradient

    value, gradient = lossed(prediction, target)
    assert (gradient[~counts] == 0).all()
    assert (gradient[counts] != 0).float().mean() > 0.9
    for other in (1e30, torch.nan, torch.inf):
        changed = torch.where(counts, prediction, other)
        changed_target = torch.where(cost > 0, target, other)
        again, same = lossed(changed, changed_target)
        assert torch.equal(again, value)
        assert torch.equal(same, gradient)


def test_a_cost_of_one_everywhere_changes_nothing() -> None:
    prediction, target = torch.randn(2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    each, mean = nn.MSELoss(reduction="none"), nn.MSELoss()
    weighted = weighted_loss(each, prediction, target, torch.ones(2, 1, 5, 5), None)
    torch.testing.assert_close(weighted, mean(prediction, target))
    assert torch.equal(weighted_loss(each, prediction, target, None, None), mean(prediction, target))


def test_a_voxel_counts_as_much_as_its_cost() -> None:
    # Squares 1, 4, 9, 16 weighted 0, 1, 3, 0.
    loss = weighted_loss(
        nn.MSELoss(reduction="none"), image(1, 2, 3, 4), image(0, 0, 0, 0), image(0, 1, 3, 0), None
    )
    assert float(loss) == pytest.approx((4 + 27) / 4)


def test_a_patch_in_which_nothing_counts_has_no_loss_and_no_gradient() -> None:
    prediction = image(1, 2, 3, 4).requires_grad_()
    for loss in (nn.MSELoss(reduction="none"), Neighbours()):
        value = weighted_loss(loss, prediction, image(0, 0, 0, 0), image(0, 0, 0, 0), None)
        [gradient] = torch.autograd.grad(value, prediction)
        assert float(value.detach()) == 0
        assert (gradient == 0).all()


def test_a_channel_counts_as_much_as_its_class_weight() -> None:
    prediction = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
    target, loss = torch.zeros(1, 2, 1, 2), nn.MSELoss(reduction="none")
    # Squares 1, 4 and 9, 16; weights 1 and 3 for the channels, 2 and 0 for the voxels.
    by_class = weighted_loss(loss, prediction, target, None, torch.tensor([1.0, 3.0]))
    assert float(by_class) == pytest.approx((1 + 4 + 3 * 9 + 3 * 16) / 8)
    both = weighted_loss(loss, prediction, target, image(2, 0), torch.tensor([1.0, 3.0]))
    assert float(both) == pytest.approx((2 * 1 + 6 * 9) / 8)


def test_class_weights_reach_the_training_step() -> None:
    network, loss = nn.Conv2d(1, 2, 1), nn.MSELoss(reduction="none")
    framework = FCN(network, loss, class_weights=[1.0, 0.0])
    batch = {"input": torch.rand(2, 1, 4, 4), "target": torch.rand(2, 2, 4, 4)}
    value = framework.training_step(batch, 0)
    expected = nn.functional.mse_loss(network(batch["input"])[:, 0], batch["target"][:, 0])
    torch.testing.assert_close(value, expected)
    value.backward()
    assert network.weight.grad is not None
    assert (network.weight.grad[1] == 0).all()
    assert not any("class_weights" in key for key in framework.state_dict())


def test_the_cost_reaches_the_training_step() -> None:
    network = nn.Conv2d(1, 1, 1)
    framework = FCN(network, nn.MSELoss(reduction="none"))
    batch = {"input": torch.rand(1, 1, 4, 4), "target": torch.rand(1, 1, 4, 4)}
    cost = torch.zeros(1, 1, 4, 4)
    cost[..., :2] = 1
    value = framework.training_step({**batch, "cost": cost}, 0)
    expected = nn.functional.mse_loss(network(batch["input"])[..., :2], batch["target"][..., :2])
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.HuberLoss(), DiceLoss(sigmoid=True)])
def test_a_loss_that_cannot_be_weighted_is_refused_with_its_key(loss: nn.Module) -> None:
    with pytest.raises(TrainingError, match=rf"framework\.kwargs\.loss: {type(loss).__name__} cannot weight"):
        FCN(nn.Identity(), loss, class_weights=[1.0])
    batch = {key: torch.rand(1, 1, 4, 4) for key in ("input", "target", "cost")}
    with pytest.raises(TrainingError, match=rf"framework\.kwargs\.loss: {type(loss).__name__} cannot weight"):
        FCN(nn.Conv2d(1, 1, 1), loss).training_step(batch, 0)


def test_a_loss_of_whole_channels_is_refused_although_its_reduction_is_none() -> None:
    loss = DiceLoss(sigmoid=True, reduction="none")
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(TrainingError, match=r"framework\.kwargs\.loss: DiceLoss .* returns values of shape"):
        weighted_loss(loss, images, images, images, None)


def test_class_weights_of_a_loss_of_all_channels_are_refused() -> None:
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(TrainingError, match=r"CrossEntropyLoss .*cannot be weighted by \[1, 3, 4, 4\]"):
        weighted_loss(nn.CrossEntropyLoss(reduction="none"), images, images, None, torch.ones(3))


@pytest.mark.parametrize("weights", [[], [1.0, -1.0], [0.0, 0.0], [float("nan")]])
def test_class_weights_that_weigh_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(TrainingError, match=r"framework\.kwargs\.class_weights: .*at least 0"):
        FCN(nn.Identity(), nn.MSELoss(reduction="none"), class_weights=weights)


def test_class_weights_of_another_number_than_the_channels_are_refused() -> None:
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(TrainingError, match=r"class_weights has 2 numbers, but the target has 3"):
        weighted_loss(nn.MSELoss(reduction="none"), images, images, None, torch.ones(2))


def test_heads_count_one_half_and_a_quarter_of_the_finest() -> None:
    target = image(0, 0)
    heads = [image(1, 1), image(2, 2), image(3, 3)]
    loss = deep_loss(nn.MSELoss(), heads, target, None, None)
    assert float(loss) == pytest.approx((1 * 1 + 0.5 * 4 + 0.25 * 9) / 1.75)
    assert float(deep_loss(nn.MSELoss(), heads[:1], target, None, None)) == 1


def test_a_smaller_head_is_compared_with_the_nearest_voxels_that_count() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 1::2, 1::2] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # the voxels that nearest takes
    cost = torch.ones(1, 1, 4, 4)
    cost[..., 3, 3] = 0
    heads = [target.clone(), torch.zeros(1, 1, 2, 2)]
    loss = deep_loss(nn.MSELoss(reduction="none"), heads, target, cost, None)
    assert float(loss) == pytest.approx((0 + 0.5 * (1 + 4 + 9) / 3) / 1.5)


def test_heads_are_told_from_a_batch_by_their_axes() -> None:
    target = torch.zeros(2, 3, 8, 8)
    stacked = torch.rand(2, 4, 3, 8, 8)
    heads = heads_of(stacked, target)
    assert len(heads) == 4
    assert torch.equal(heads[1], stacked[:, 1])
    [single] = heads_of(target, target)
    assert single is target
    assert len(heads_of((target, target[..., ::2, ::2]), target)) == 2
    for wrong in ({"out": target}, [], [target, None], stacked[None]):
        with pytest.raises(TrainingError, match="in training the network returns"):
            heads_of(wrong, target)


def test_dynunet_is_deeply_supervised_in_training_and_gives_one_tensor_else() -> None:
    torch.manual_seed(0)
    network = DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        kernel_size=[3, 3, 3, 3],
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=[4, 4, 8, 8],
        norm_name="batch",
        deep_supervision=True,
        deep_supr_num=2,
    )
    framework = FCN(network, nn.MSELoss())
    batch = {"input": torch.rand(2, 1, 16, 16), "target": torch.rand(2, 1, 16, 16)}
    heads = network(batch["input"]).unbind(1)
    assert len(heads) == 3
    mse = [nn.functional.mse_loss(head, batch["target"]) for head in heads]
    torch.testing.assert_close(framework.training_step(batch, 0), (mse[0] + mse[1] / 2 + mse[2] / 4) / 1.75)
    assert framework.exported_network().eval()(batch["input"]).shape == (2, 1, 16, 16)
