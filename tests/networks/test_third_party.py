"""Networks of packages that im2im_zoo knows nothing of, by their dotted paths; only where those packages are installed."""

import pytest
import torch

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.recipe.components import Component, build_component, check_component

# As docs/networks-and-losses.md has it.
FASTAI = Component.model_validate(
    {
        "callable": "fastai.vision.learner.create_unet_model",
        "kwargs": {
            "arch": {"callable": "torchvision.models.resnet18", "call": False},
            "n_in": 1,
            "n_out": 1,
            "img_size": [64, 64],
            "pretrained": False,
        },
    }
)


def test_code_of_a_package_that_is_not_trusted_is_not_even_looked_for_without_consent() -> None:
    with pytest.raises(ComponentError, match="--allow-code fastai"):
        check_component(FASTAI, "network")


def test_a_unet_of_fastai_learns_a_batch() -> None:
    pytest.importorskip("fastai.vision.learner", reason="fastai is not installed")
    torch.manual_seed(0)
    network = build_component(FASTAI, "network", allow_code=("fastai", "torchvision"))
    image = torch.randn(2, 1, 64, 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.mse_loss(network(image), 2 * image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert network(image).shape == image.shape
    assert losses[-1] < losses[0]
