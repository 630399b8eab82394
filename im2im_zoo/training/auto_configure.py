"""Automatic patch size and batch size for a recipe that leaves them open, from its images, network and machine.

They depend on the image and object sizes, on the patches that the network accepts, on the memory that a training step needs
and on that of the machine. They are selected once and written to the run folder's recipe, from which a resumed run takes them.
"""

import contextlib
import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.data.pairing.image_pair import open_image_pair, open_side_image
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.patches.advice import Choice, StepMemory, choose_batch, choose_patch
from im2im_zoo.data.patches.extents import ImageExtents, measure_extents
from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.build import build_framework

# Multiples that networks may need as sizes, the most usual first.
_STEPS = (16, 32, 64, 128, 8, 4, 2, 1)
_PARTS = (1.0, 0.5, 0.25, 0.125, 0.0625)
# A step needs more than the tensors saved for the gradient: temporary gradients, workspace of convolutions.
_BEYOND_KEPT = 2
_SHARE_OF_MEMORY, _SHARE_OF_GPU = 0.5, 0.8
_OF_SEVERAL_PROCESSES = ("devices", "num_nodes", "strategy")
# Errors that networks and losses raise for a patch that they cannot process.
_REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError, TypeError, TrainingError)


@dataclass(frozen=True, slots=True)
class ConfiguredRecipe:
    """A recipe with its patch size and batch size, and the choices that were made for it."""

    recipe: Recipe
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class ChannelCounts:
    """Number of channels of the input and target images."""

    input: int
    target: int


def configure_patches(
    recipe: Recipe, allow_code: Collection[str] = (), run: Recipe | None = None
) -> ConfiguredRecipe:
    """Select the patch size and the batch size where a recipe leaves them open.

    Args:
        recipe: a checked recipe.
        allow_code: see `components.resolve_component`.
        run: recipe of the run that is resumed; its sizes are used, and none are selected.

    Raises:
        Im2ImError: images that cannot be opened or do not match; a network that cannot be built, or accepts no patch.
    """
    data = recipe.data
    if data.patch_size is not None and data.batch_size is not None:
        return ConfiguredRecipe(recipe, ())
    if run is not None:
        known = {"patch_size": run.data.patch_size, "batch_size": run.data.batch_size}
        return ConfiguredRecipe(
            _update_data(recipe, {k: v for k, v in known.items() if getattr(data, k) is None}), ()
        )
    pairs = find_pairs(data, recipe.seed)
    samples = [open_image_pair(pair, recipe) for pair in (*pairs.train, *pairs.validation)]
    inputs = [*(open_side_image(path, recipe, "input") for path in pairs.inputs), *(s.input for s in samples)]
    targets = [
        *(open_side_image(path, recipe, "target") for path in pairs.targets),
        *(s.target for s in samples),
    ]
    labels = targets if recipe.output.task == "instance" and data.pairing != "self" else []
    extents = measure_extents([*inputs, *targets], labels)
    channels = ChannelCounts(inputs[0].sizes["channel"], targets[0].sizes["channel"])
    made = select_settings(recipe, extents, channels, allow_code)
    fields = {choice.key.removeprefix("data."): choice.value for choice in made}
    if "patch_size" in fields:
        fields["patch_size"] = tuple(fields["patch_size"])
    return ConfiguredRecipe(_update_data(recipe, fields), made)


def select_settings(
    recipe: Recipe, extents: ImageExtents, channels: ChannelCounts, allow_code: Collection[str] = ()
) -> tuple[Choice, ...]:
    """Select the open settings of a recipe that suit its images, its network and this machine.

    Args:
        recipe: a checked recipe.
        extents: of the images.
        channels: of the images.
        allow_code: see `components.resolve_component`.

    Raises:
        ComponentError: a network that cannot be built.
        TrainingError: it accepts none of the patches that were tried.
    """
    with torch.random.fork_rng():
        framework = build_framework(recipe, allow_code)
    gpu = torch.cuda.is_available() and recipe.trainer.get("accelerator", "auto") != "cpu"
    limit, given = find_memory_limit(recipe.trainer, gpu=gpu), recipe.data.patch_size
    if given is not None:
        memory = _measure_step_memory(framework, channels, given, limit)
        return (choose_batch(given, gpu=gpu, memory=memory),)
    patch, memory = _select_patch(framework, extents, channels, limit, gpu=gpu)
    batch = choose_batch(patch.value, gpu=gpu, memory=memory)
    return (patch,) if recipe.data.batch_size is not None else (patch, batch)


def _select_patch(
    framework: Framework, extents: ImageExtents, channels: ChannelCounts, limit: int, *, gpu: bool
) -> tuple[Choice, StepMemory]:
    """Select the largest patch that the network accepts and that fits the memory; the smallest that was tried if none fits."""
    tried: dict[tuple[int, ...], StepMemory | None] = {}
    found: tuple[Choice, StepMemory] | None = None
    for part in _PARTS:
        for step in _STEPS:
            patch = choose_patch(extents, gpu=gpu, step=step, shrink=part, network="the network accepts")
            if tuple(patch.value) in tried:
                continue
            memory = tried[tuple(patch.value)] = _measure_step_memory(framework, channels, patch.value, limit)
            if memory is None:
                continue
            found = patch, memory
            if memory.patches >= 1:
                return found
            break  # try a smaller patch of this step
    if found is None:
        sizes = ", ".join(" x ".join(map(str, size)) for size in tried)
        raise TrainingError(
            f"the network accepts none of the patches that were tried, {sizes} voxels of {channels.input} channel(s): set "
            "data.patch_size to a size that it accepts, or fit network.kwargs to the images"
        )
    return found


def find_memory_limit(trainer: Mapping[str, Any], *, gpu: bool) -> int:
    """Return the bytes that a training step may use.

    It is a share of the free memory, or of the total where each of several processes has to find the same number.

    Args:
        trainer: the recipe's `trainer` section.
        gpu: whether the network is on a GPU.
    """
    several = any(key in trainer for key in _OF_SEVERAL_PROCESSES)
    if gpu:
        free, total = torch.cuda.mem_get_info()
        return int(_SHARE_OF_GPU * (total if several else free))
    memory, devices = psutil.virtual_memory(), trainer.get("devices", 1)
    shared = devices if isinstance(devices, int) and devices > 0 else 1
    return int(_SHARE_OF_MEMORY * (memory.total / shared if several else memory.available))


def measure_saved_bytes(framework: Framework, channels: ChannelCounts, patch: Sequence[int]) -> int | None:
    """Measure the bytes that a training step saves of one patch until its gradient is computed.

    The tensors saved by autograd are counted, each storage once, without weights, so the number is the same on any machine. For
    networks that are trained against each other, one pass of the exported network is counted `passes_kept` times. The framework
    cannot be used afterwards: its running statistics have changed.

    Args:
        framework: of the recipe.
        channels: of the images.
        patch: voxels along (z,) y, x.

    Returns:
        Bytes, or None if the network does not accept the patch.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*framework.parameters(), *framework.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network = framework.exported_network()
    with torch.random.fork_rng(), warnings.catch_warnings(), contextlib.suppress(*_REFUSALS):
        warnings.filterwarnings("ignore", "You are trying to `self.log")  # there is no trainer
        # Two patches: normalisations refuse a single one that was halved to one voxel. Ones are valid labels, too.
        batch = {
            "input": torch.rand(2, channels.input, *patch),
            "target": torch.ones(2, channels.target, *patch),
        }
        with torch.inference_mode():
            output = network.eval()(batch["input"][:1])
        if not isinstance(output, torch.Tensor) or tuple(output.shape[2:]) != tuple(patch):
            return None
        framework.train()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            made = (
                framework.training_step(batch, 0)
                if framework.automatic_optimization
                else network(batch["input"])
            )
        del made  # it holds the tensors that are counted
        passes = 1 if framework.automatic_optimization else framework.passes_kept
        return passes * sum(kept.values()) // 2
    return None


def _measure_step_memory(
    framework: Framework, channels: ChannelCounts, patch: Sequence[int], limit: int
) -> StepMemory | None:
    """Measure the memory of a step: weights, gradients, Adam's two moments, and each patch; None if the patch is refused."""
    kept = measure_saved_bytes(framework, channels, patch)
    if kept is None:
        return None
    weights = sum(p.numel() * p.element_size() for p in framework.parameters())
    return StepMemory(4 * weights, math.ceil(_BEYOND_KEPT * kept), limit)


def _update_data(recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=fields)})


def reasons_by_key(choices: Iterable[Choice]) -> dict[str, str]:
    """Return value and reason of each choice by its key, as a run's provenance records them."""
    return {choice.key: f"{choice.value}: {choice.reason}" for choice in choices}
