"""From a recipe to the objects that train: each component checked first, then built. Trains nothing."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn

from im2im_zoo.core.errors import RecipeError, TrainingError
from im2im_zoo.data.pairing.files import list_files
from im2im_zoo.data.patches.augmentation import check_augmentations
from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import (
    Component,
    build_component,
    check_component,
    is_component,
    parse_component,
    resolve_component,
    suggest_nearest,
)
from im2im_zoo.training.memory import is_out_of_memory, what_needs_less

# What training sets itself: the run folder, its checkpoints, its logs and its progress bar.
_OURS = ("default_root_dir", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


def check_recipe(recipe: Recipe, allow_code: Collection[str] = ()) -> None:
    """Check every component of a recipe against its signature, and the trainer's options, building nothing.

    Raises:
        ComponentError, RecipeError: with the full key of what is wrong.
    """
    check_component(recipe.framework, "framework", allow_code=allow_code, given=("network",), kind=Framework)
    check_component(recipe.network, "network", allow_code=allow_code, kind=nn.Module)
    check_augmentations(recipe.data, allow_code)
    if recipe.output.grouping is not None:
        check_component(recipe.output.grouping, "output.grouping", allow_code=allow_code, given=("maps",))
    _check_uses(recipe, allow_code)
    options = inspect.signature(pl.Trainer).parameters
    for key, value in recipe.trainer.items():
        if key in _OURS:
            raise RecipeError(f"trainer.{key}: training sets this itself; remove it")
        if key not in options:
            raise RecipeError(
                f"unknown key 'trainer.{key}'{suggest_nearest(key, [o for o in options if o not in _OURS])}"
            )
        for where, component in _components(value, f"trainer.{key}"):
            check_component(component, where, allow_code=allow_code)
    every, epochs = (recipe.trainer.get(key) for key in ("check_val_every_n_epoch", "max_epochs"))
    validates = not (isinstance(every, int) and isinstance(epochs, int) and every > epochs >= 0)
    if recipe.monitor.startswith("val_") and not validates:
        raise RecipeError(
            f"trainer.check_val_every_n_epoch: {every}: nothing is ever validated in {epochs} epochs, so none would be the best one; "
            "say a smaller number"
        )


def _check_uses(recipe: Recipe, allow_code: Collection[str]) -> None:
    """Refuse data that the framework would pass over in silence, or learn nonsense from."""
    method = resolve_component(recipe.framework.callable, "framework.callable", allow_code)
    name = recipe.framework.callable.rpartition(".")[2]
    if recipe.data.has_cost and not getattr(method, "uses_cost", False):
        raise RecipeError(f"data.cost: {name} does not heed cost maps; leave them out, or use FCN or Pix2Pix")
    if recipe.data.pairing == "unpaired" and getattr(method, "uses_pairs", True):
        raise RecipeError(
            f"data.pairing: unpaired: {name} learns from images that belong together; pair them, or use CycleGAN"
        )
    if recipe.data.hard_patches and not getattr(method, "can_rate_patches", False):
        raise RecipeError(
            f"data.hard_patches: {name} does not tell the loss of each patch; leave it out, or use FCN, Pix2Pix or EmbedSeg"
        )
    if recipe.data.pairing == "self" and getattr(method, "uses_targets", True):
        raise RecipeError(
            f"data.pairing: self: {name} learns from targets, and would learn to do nothing; give it some, or use "
            "Noise2Void or Self2Self"
        )
    if recipe.data.pairing != "self" and not getattr(method, "uses_targets", True):
        raise RecipeError(
            f"data.pairing: {recipe.data.pairing}: {name} learns from the images alone and would pass over their targets; "
            "say data.pairing: self"
        )


def build_framework(
    recipe: Recipe, allow_code: Collection[str] = (), weights: Mapping[str, torch.Tensor] | None = None
) -> Framework:
    """The framework of a recipe with its network, weights drawn by torch's current random state.

    Args:
        recipe: what to build.
        allow_code: see `components.resolve_component`.
        weights: for the network to start from, a state dict of its own.

    Raises:
        ComponentError: what cannot be built.
        TrainingError: weights that do not fit the network; the message lists them.
    """
    network = build_component(recipe.network, "network", allow_code=allow_code)
    if weights is not None:
        _load(network, weights, str(recipe.network.init_from))
    framework: Framework = build_component(
        recipe.framework, "framework", network=network, allow_code=allow_code
    )
    return framework


def build_trainer_options(recipe: Recipe, allow_code: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of the recipe's `trainer` section, components built, callbacks in a list.

    Raises:
        ComponentError: what cannot be built.
        TrainingError: a strategy that keeps parts where training, or export, needs the whole.
    """
    options = {key: _built(value, f"trainer.{key}", allow_code) for key, value in recipe.trainer.items()}
    given: Any = options.get("callbacks") or []
    callbacks = given if isinstance(given, list) else [given]
    _check_sharding(options.get("strategy"), callbacks)
    return options | {"callbacks": callbacks}


def _check_sharding(strategy: Any, callbacks: Sequence[pl.Callback]) -> None:
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    in_parts = "deepspeed" in name.lower() or isinstance(strategy, ModelParallelStrategy)
    if in_parts or getattr(strategy, "_state_dict_type", "full") != "full":
        raise TrainingError(
            f"trainer.strategy: {name} as it is set keeps a checkpoint in parts, which cannot be exported: use ddp, fsdp, or "
            "FSDPStrategy with state_dict_type: full"
        )
    averages = [type(callback).__name__ for callback in callbacks if isinstance(callback, WeightAveraging)]
    if averages and (isinstance(strategy, FSDPStrategy) or name.startswith("fsdp")):
        raise TrainingError(
            f"trainer.callbacks: {averages[0]} averages whole weights, of which each process has a part with trainer.strategy {name}: "
            "leave it out, or use ddp"
        )


def check_shapes(framework: Framework, recipe: Recipe, batch: Mapping[str, torch.Tensor]) -> None:
    """Check, with one patch, that the network takes the recipe's patches and gives the shape that the target asks for.

    Raises:
        TrainingError: it does not; the message names the keys to change.
    """
    image, target = batch["input"][:1], batch["target"][:1]
    channels = framework.output_channels(target.shape[1])
    expected = torch.Size([1, channels, *target.shape[2:]])
    network, size = framework.exported_network().eval(), list(recipe.data.patch)
    try:
        with torch.inference_mode():
            output = network(image.float())
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(what_needs_less(recipe)) from error
        raise TrainingError(
            f"the network cannot take a patch of shape {list(image.shape)} (batch, channel, "
            f"{', '.join(recipe.space)}): {error}; fit network.kwargs to {image.shape[1]} input channel(s), or "
            f"make data.patch_size (now {size}) a multiple of the network's down-sampling"
        ) from error
    finally:
        framework.train()
    if not isinstance(output, torch.Tensor):
        raise TrainingError(
            f"the network gives {type(output).__name__}, not one tensor; choose another network"
        )
    if output.shape != expected:
        hint = (
            f"set the network's output channels to {channels}"
            if output.shape[2:] == target.shape[2:]
            else f"make data.patch_size (now {size}) a multiple of the network's down-sampling"
        )
        raise TrainingError(
            f"the network gives shape {list(output.shape)}, but has to give {list(expected)}: {hint}"
        )


def _load(network: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    lines = [f"{name}: the network has no such weights" for name in given.keys() - own.keys()]
    lines += [f"{name}: missing in the run" for name in own.keys() - given.keys()]
    lines += [
        f"{name}: {given[name]} in the run, {own[name]} in the network"
        for name in own.keys() & given.keys()
        if own[name] != given[name]
    ]
    if lines:
        raise TrainingError(
            f"network.init_from: the weights of {source} do not fit the network; give it the same network.kwargs as "
            f"that run has:\n{list_files(sorted(lines))}"
        )
    network.load_state_dict(weights, strict=True)


def _components(value: object, where: str) -> list[tuple[str, Component]]:
    if is_component(value):
        return [(where, parse_component(value, where))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [found for i, v in enumerate(value) for found in _components(v, f"{where}.{i}")]
    return []


def _built(value: object, where: str, allow_code: Collection[str]) -> object:
    if is_component(value):
        return build_component(parse_component(value, where), where, allow_code=allow_code)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_built(v, f"{where}.{i}", allow_code) for i, v in enumerate(value)]
    return value
