"""Building of a recipe's framework, network and trainer options, after all components are checked."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.precision import Precision
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from im2im_zoo import frameworks
from im2im_zoo.core.errors import ComponentError, RecipeError, TrainingError
from im2im_zoo.core.nested import walk_values
from im2im_zoo.core.subclasses import subclasses_in
from im2im_zoo.data.pairing.files import format_file_list
from im2im_zoo.data.patches.augmentation import check_augmentations
from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import (
    Component,
    build_component,
    build_value,
    check_component,
    find_components,
    resolve_component,
    suggest_nearest,
)
from im2im_zoo.recipe.data import Data
from im2im_zoo.recipe.trust import leaves_run_folder
from im2im_zoo.training.failures import is_out_of_memory, suggest_less_memory

# Options that training sets itself: run folder, checkpoints, logs and progress bar.
_RESERVED = ("default_root_dir", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
# The only classes that belong into an argument of a framework; anything else there is a network or a loss.
_FRAMEWORK_KINDS: dict[str, type] = {
    "optimizer": Optimizer,
    "discriminator_optimizer": Optimizer,
    "scheduler": LRScheduler,
    "metrics": Metric,
}
_TRAINER_KINDS: dict[str, type | tuple[type, ...]] = {
    "callbacks": pl.Callback,
    "logger": Logger,
    "plugins": Precision,
    "profiler": Profiler,
    "strategy": Strategy,
}
# Arguments of callbacks, loggers and profilers that name a folder, which is one within the run folder; `filename` is below it.
_FOLDERS = ("dirpath", "save_dir")
_FILES = (*_FOLDERS, "filename", "sub_dir")


def check_recipe(recipe: Recipe, allow_code: Collection[str] = ()) -> None:
    """Check every component of a recipe against its signature, and the trainer's options, without building any.

    Args:
        recipe: the recipe.
        allow_code: see `components.resolve_component`.

    Raises:
        ComponentError, RecipeError: an invalid component or option; the message names the full key.
    """
    # First of what kind they are: an optimizer in the place of a loss need not be told that it lacks arguments.
    _check_framework_arguments(recipe.framework, allow_code)
    check_component(recipe.framework, "framework", allow_code=allow_code, given=("network",), kind=Framework)
    check_component(recipe.network, "network", allow_code=allow_code, kind=nn.Module, inner_kind=nn.Module)
    check_augmentations(recipe.data, allow_code)
    if recipe.output.grouping is not None:
        _check_grouping(recipe.output.grouping, allow_code)
    _check_data_fits_framework(recipe, allow_code)
    options = inspect.signature(pl.Trainer).parameters
    for key, value in recipe.trainer.items():
        if key in _RESERVED:
            raise RecipeError(f"trainer.{key}: training sets this itself; remove it")
        if key not in options:
            raise RecipeError(
                f"unknown key 'trainer.{key}'{suggest_nearest(key, [o for o in options if o not in _RESERVED])}"
            )
        if key == "model_registry" and value:
            raise RecipeError("trainer.model_registry: this would upload the checkpoints; remove it")
        for where, component in find_components(value, f"trainer.{key}"):
            _check_trainer_component(component, where, key, allow_code)
    every, epochs = (recipe.trainer.get(key) for key in ("check_val_every_n_epoch", "max_epochs"))
    validates = not (isinstance(every, int) and isinstance(epochs, int) and every > epochs >= 0)
    if recipe.monitor.startswith("val_") and not validates:
        raise RecipeError(
            f"trainer.check_val_every_n_epoch: {every}: {epochs} epochs never reach a validation, so there is no best epoch; "
            "give a smaller number"
        )


def _check_framework_arguments(framework: Component, allow_code: Collection[str]) -> None:
    """Refuse a component of im2im_zoo's frameworks that is not of the kind of its place, e.g. an optimizer as a loss."""
    if framework.package in allow_code:
        return
    for key, value in framework.kwargs.items():
        kind = _FRAMEWORK_KINDS.get(key, nn.Module)
        for where, component in find_components(value, f"framework.kwargs.{key}"):
            check_component(
                component,
                where,
                allow_code=allow_code,
                kind=None if component.package in allow_code else kind,
                inner_kind=nn.Module,
            )


def _check_grouping(grouping: Component, allow_code: Collection[str]) -> None:
    """Refuse a class as the post-processing of instances, which is a function of the maps."""
    key = "output.grouping"
    found = resolve_component(grouping.callable, f"{key}.callable", allow_code)
    if inspect.isclass(found) and grouping.package not in allow_code:
        raise ComponentError(
            f"{key}.callable: {grouping.callable} is a class, not a function of the maps; use "
            "im2im_zoo.instances.methods.components.group, or another of that folder"
        )
    check_component(grouping, key, allow_code=allow_code, given=("maps",))


def _check_trainer_component(component: Component, where: str, key: str, allow_code: Collection[str]) -> None:
    """Refuse a component that does not belong into an argument of the trainer, or that writes outside the run folder."""
    kind = _TRAINER_KINDS.get(key)
    if kind is None:
        raise RecipeError(
            f"{where}: trainer.{key} takes plain values only, no component; components belong into "
            f"trainer.{', trainer.'.join(_TRAINER_KINDS)}"
        )
    check_component(
        component, where, allow_code=allow_code, kind=kind, inner_kind=(Precision, nn.Module), places=_FILES
    )
    if component.package in allow_code:
        return
    for inside, value in walk_values(component.kwargs):
        if isinstance(value, str) and leaves_run_folder(value):
            raise ComponentError(
                f"{where}.kwargs.{inside}: {value!r} is outside the run folder: give a path within it, as in `logs`, or pass "
                f"--allow-code {component.package} if you trust the recipe"
            )


def _check_data_fits_framework(recipe: Recipe, allow_code: Collection[str]) -> None:
    """Refuse data that the framework would silently ignore, or from which it would learn nothing useful."""
    framework = resolve_component(recipe.framework.callable, "framework.callable", allow_code)
    problem = _data_problem(framework, recipe.data)
    if problem is None:
        return
    others = [
        other.__name__
        for other in _known_frameworks()
        if _data_problem(other, recipe.data) is None
        and (recipe.output.task == "instance" or not other.needs_instance_labels)
    ]
    choice = " or ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others)
    raise RecipeError(f"{problem}, or use {choice}" if others else problem)


def _data_problem(framework: Any, data: Data) -> str | None:
    """Return why a framework cannot learn from the data, and what to change; None if it can."""
    name = getattr(framework, "__name__", str(framework))
    if data.has_cost and not getattr(framework, "uses_weight_maps", False):
        return f"data.cost: {name} ignores weight maps; remove data.cost"
    if data.pairing == "unpaired" and getattr(framework, "uses_pairs", True):
        return f"data.pairing: unpaired: {name} needs pairs of input and target; pair the images"
    if data.hard_patches and not getattr(framework, "can_rate_patches", False):
        return f"data.hard_patches: {name} does not report the loss of each patch; remove data.hard_patches"
    uses_targets = getattr(framework, "uses_targets", True)
    if data.pairing == "self" and uses_targets:
        return f"data.pairing: self: {name} needs targets; add them and choose another data.pairing"
    if data.pairing != "self" and not uses_targets:
        return (
            f"data.pairing: {data.pairing}: {name} learns from the input images only and ignores targets; set "
            "data.pairing: self"
        )
    return None


def _known_frameworks() -> list[type[Framework]]:
    """Return the frameworks of im2im_zoo, by name."""
    found = [f for f in subclasses_in(frameworks, Framework) if f.cite is not None]
    return sorted(found, key=lambda f: f.__name__)


def build_framework(
    recipe: Recipe, allow_code: Collection[str] = (), weights: Mapping[str, torch.Tensor] | None = None
) -> Framework:
    """Build the framework of a recipe with its network; random weights depend on torch's current random state.

    Args:
        recipe: the recipe.
        allow_code: see `components.resolve_component`.
        weights: state dict that the network starts from, if any.

    Raises:
        ComponentError: a component that cannot be built.
        TrainingError: weights that do not fit the network; the message lists them.
    """
    network = build_component(recipe.network, "network", allow_code=allow_code)
    if weights is not None:
        _load_weights(network, weights, str(recipe.network.init_from))
    framework: Framework = build_component(
        recipe.framework, "framework", network=network, allow_code=allow_code
    )
    return framework


def build_trainer_options(recipe: Recipe, output: Path, allow_code: Collection[str] = ()) -> dict[str, Any]:
    """Build the arguments of the recipe's `trainer` section, with callbacks in a list.

    Args:
        recipe: the recipe.
        output: the run folder, in which callbacks, loggers and profilers write.
        allow_code: see `components.resolve_component`.

    Raises:
        ComponentError: a component that cannot be built.
        TrainingError: a strategy that shards what training or export needs as a whole.
    """
    options = {
        key: build_value(_place_folders(value, output), f"trainer.{key}", allow_code)
        for key, value in recipe.trainer.items()
    }
    given: Any = options.get("callbacks") or []
    callbacks = given if isinstance(given, list) else [given]
    _check_sharding(options.get("strategy"), callbacks)
    return options | {"callbacks": callbacks}


def _place_folders(value: Any, output: Path) -> Any:
    """Return a value of the trainer section whose components write into folders within the run folder."""
    if isinstance(value, Component):
        value = value.model_dump()
    if isinstance(value, Mapping):
        of_lightning = str(value.get("callable", "")).startswith("pytorch_lightning.")
        kwargs = value.get("kwargs")
        if of_lightning and isinstance(kwargs, Mapping):
            folders = {k: str(output.absolute() / v) for k, v in kwargs.items() if k in _FOLDERS and v}
            return {**value, "kwargs": {**_place_folders(kwargs, output), **folders}}
        return {k: _place_folders(v, output) for k, v in value.items()}
    return [_place_folders(v, output) for v in value] if isinstance(value, list | tuple) else value


def _check_sharding(strategy: Any, callbacks: Sequence[pl.Callback]) -> None:
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    in_parts = "deepspeed" in name.lower() or isinstance(strategy, ModelParallelStrategy)
    if in_parts or getattr(strategy, "_state_dict_type", "full") != "full":
        raise TrainingError(
            f"trainer.strategy: {name} saves sharded checkpoints, which cannot be exported: use ddp, fsdp, or "
            "FSDPStrategy with state_dict_type: full"
        )
    averages = [type(callback).__name__ for callback in callbacks if isinstance(callback, WeightAveraging)]
    if averages and (isinstance(strategy, FSDPStrategy) or name.startswith("fsdp")):
        raise TrainingError(
            f"trainer.callbacks: {averages[0]} needs whole weights, but each process has only a part with trainer.strategy {name}: "
            "remove it, or use ddp"
        )


def check_shapes(framework: Framework, recipe: Recipe, batch: Mapping[str, torch.Tensor]) -> None:
    """Check with one patch that the network accepts the recipe's patches and returns the shape of the target.

    Args:
        framework: with the network.
        recipe: its patch size is named in messages.
        batch: `input` and `target`, (batch, channel, (z,) y, x).

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
            raise TrainingError(suggest_less_memory(recipe)) from error
        raise TrainingError(
            f"the network cannot process a patch of shape {list(image.shape)} (batch, channel, "
            f"{', '.join(recipe.space)}): {error}; set network.kwargs for {image.shape[1]} input channel(s), or "
            f"make data.patch_size (now {size}) a multiple of the network's down-sampling"
        ) from error
    finally:
        framework.train()
    if not isinstance(output, torch.Tensor):
        raise TrainingError(
            f"the network returns {type(output).__name__}, not one tensor; choose another network"
        )
    if output.shape != expected:
        hint = (
            f"set the network's output channels to {channels}"
            if output.shape[2:] == target.shape[2:]
            else f"make data.patch_size (now {size}) a multiple of the network's down-sampling"
        )
        raise TrainingError(
            f"the network returns shape {list(output.shape)}, but the target needs {list(expected)}: {hint}"
        )


def _load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    lines = [f"{name}: missing in the network" for name in given.keys() - own.keys()]
    lines += [f"{name}: missing in the run" for name in own.keys() - given.keys()]
    lines += [
        f"{name}: {given[name]} in the run, {own[name]} in the network"
        for name in own.keys() & given.keys()
        if own[name] != given[name]
    ]
    if lines:
        raise TrainingError(
            f"network.init_from: the weights of {source} do not fit the network; use the network.kwargs of "
            f"that run:\n{format_file_list(sorted(lines))}"
        )
    network.load_state_dict(weights, strict=True)
