"""Patch size and batch size of a recipe that does not say them: for its images, its network and this machine. Trains nothing.

A choice depends on the sizes that files state, on the objects in them, on what the network takes and keeps of a patch, and on the
memory of the machine. It is made once: the run folder's recipe says what was chosen, and a resumed run takes it from there.
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
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.samples import open_sample, open_side
from im2im_zoo.data.patches.advice import Choice, StepMemory, choose_batch, choose_patch
from im2im_zoo.data.patches.extents import Extents, extents_of
from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.build import build_framework

# What networks may want sizes to be multiples of, the most usual first.
_STEPS = (16, 32, 64, 128, 8, 4, 2, 1)
_PARTS = (1.0, 0.5, 0.25, 0.125, 0.0625)
# A step takes more than what is kept for the gradient: gradients on their way, room for convolutions.
_BEYOND_KEPT = 2
_SHARE_OF_MEMORY, _SHARE_OF_GPU = 0.5, 0.8
_OF_SEVERAL_PROCESSES = ("devices", "num_nodes", "strategy")
# What networks and losses raise of a patch that they cannot take.
_REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError, TypeError, TrainingError)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe that says all of its patches, and what of that was chosen."""

    recipe: Recipe
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Channels:
    """How many channels images have."""

    input: int
    target: int


def with_patches(recipe: Recipe, allow_code: Collection[str] = (), run: Recipe | None = None) -> Chosen:
    """The recipe with a patch size and a batch size, chosen where it has none.

    Args:
        recipe: one that was checked.
        allow_code: see `components.resolve_component`.
        run: the recipe of the run that is resumed; what it says is taken, and nothing chosen.

    Raises:
        Im2ImError: images that cannot be opened or do not match; a network that cannot be built, or takes no patch.
    """
    data = recipe.data
    if data.patch_size is not None and data.batch_size is not None:
        return Chosen(recipe, ())
    if run is not None:
        known = {"patch_size": run.data.patch_size, "batch_size": run.data.batch_size}
        return Chosen(_updated(recipe, {k: v for k, v in known.items() if getattr(data, k) is None}), ())
    pairs = find_pairs(data, recipe.seed)
    samples = [open_sample(pair, recipe) for pair in (*pairs.train, *pairs.validation)]
    inputs = [*(open_side(path, recipe, "input") for path in pairs.inputs), *(s.input for s in samples)]
    targets = [*(open_side(path, recipe, "target") for path in pairs.targets), *(s.target for s in samples)]
    labels = targets if recipe.output.task == "instance" and data.pairing != "self" else []
    extents = extents_of([*inputs, *targets], labels)
    channels = Channels(inputs[0].sizes["channel"], targets[0].sizes["channel"])
    made = choices(recipe, extents, channels, allow_code)
    fields = {choice.key.removeprefix("data."): choice.value for choice in made}
    if "patch_size" in fields:
        fields["patch_size"] = tuple(fields["patch_size"])
    return Chosen(_updated(recipe, fields), made)


def choices(
    recipe: Recipe, extents: Extents, channels: Channels, allow_code: Collection[str] = ()
) -> tuple[Choice, ...]:
    """What suits images, the recipe's network and this machine, of what the recipe does not say.

    Args:
        recipe: one that was checked.
        extents: of the images.
        channels: of the images.
        allow_code: see `components.resolve_component`.

    Raises:
        ComponentError: a network that cannot be built.
        TrainingError: it takes none of the patches that were tried.
    """
    with torch.random.fork_rng():
        framework = build_framework(recipe, allow_code)
    gpu = torch.cuda.is_available() and recipe.trainer.get("accelerator", "auto") != "cpu"
    limit, given = memory_of(recipe.trainer, gpu=gpu), recipe.data.patch_size
    if given is not None:
        memory = _step_memory(framework, channels, given, limit)
        return (choose_batch(given, gpu=gpu, memory=memory),)
    patch, memory = _choose_patch(framework, extents, channels, limit, gpu=gpu)
    batch = choose_batch(patch.value, gpu=gpu, memory=memory)
    return (patch,) if recipe.data.batch_size is not None else (patch, batch)


def _choose_patch(
    framework: Framework, extents: Extents, channels: Channels, limit: int, *, gpu: bool
) -> tuple[Choice, StepMemory]:
    """The largest patch that the network takes and of which one fits the memory; the smallest that was tried if none fits."""
    tried: dict[tuple[int, ...], StepMemory | None] = {}
    found: tuple[Choice, StepMemory] | None = None
    for part in _PARTS:
        for step in _STEPS:
            patch = choose_patch(extents, gpu=gpu, step=step, shrink=part, network="the network takes")
            if tuple(patch.value) in tried:
                continue
            memory = tried[tuple(patch.value)] = _step_memory(framework, channels, patch.value, limit)
            if memory is None:
                continue
            found = patch, memory
            if memory.patches >= 1:
                return found
            break  # of this step, a smaller one
    if found is None:
        sizes = ", ".join(" x ".join(map(str, size)) for size in tried)
        raise TrainingError(
            f"the network takes none of the patches that were tried, {sizes} voxels of {channels.input} channel(s): give a size that it takes "
            "in data.patch_size, or fit network.kwargs to the images"
        )
    return found


def memory_of(trainer: Mapping[str, Any], *, gpu: bool) -> int:
    """Bytes that a step may take: of what is free now, or of all, where each of several processes has to find the same."""
    several = any(key in trainer for key in _OF_SEVERAL_PROCESSES)
    if gpu:
        free, total = torch.cuda.mem_get_info()
        return int(_SHARE_OF_GPU * (total if several else free))
    memory, devices = psutil.virtual_memory(), trainer.get("devices", 1)
    shared = devices if isinstance(devices, int) and devices > 0 else 1
    return int(_SHARE_OF_MEMORY * (memory.total / shared if several else memory.available))


def kept_bytes(framework: Framework, channels: Channels, patch: Sequence[int]) -> int | None:
    """Bytes that a step keeps of one patch until its gradient is known; None if the network does not take it.

    What autograd keeps is counted, each piece of memory once, and no weights: so the number is the same on any machine. Where networks
    are trained against each other, it is one pass of the one that is exported, as often as the framework says. The framework is of no
    use after it: its running statistics have changed.
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
        warnings.filterwarnings(
            "ignore", "You are trying to `self.log"
        )  # no trainer is there that would keep it
        # Two patches: normalisations refuse one alone where it has been halved to a single voxel. Ones are labels, too.
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
        del made  # it has held what is counted
        passes = 1 if framework.automatic_optimization else framework.passes_kept
        return passes * sum(kept.values()) // 2
    return None


def _step_memory(
    framework: Framework, channels: Channels, patch: Sequence[int], limit: int
) -> StepMemory | None:
    """Weights, gradients and Adam's two moments, and what is kept of a patch, of all networks; None if it is not taken."""
    kept = kept_bytes(framework, channels, patch)
    if kept is None:
        return None
    weights = sum(p.numel() * p.element_size() for p in framework.parameters())
    return StepMemory(4 * weights, math.ceil(_BEYOND_KEPT * kept), limit)


def _updated(recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=fields)})


def told(choices: Iterable[Choice]) -> dict[str, str]:
    """Each choice by its key, as a run's provenance says it."""
    return {choice.key: f"{choice.value}: {choice.reason}" for choice in choices}
