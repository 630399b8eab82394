"""Move pointwise processing around the network into its graph. Results stay the same, in more programs.

Programs that run packages have operations of their own, which differ: deepImageJ computes wrong numbers for gains and means of
several channels, QuPath cannot read a gain that is one number, both lack a softmax. What is inside the network is computed right
everywhere. Statistics of the image have to stay outside: a network that runs in tiles sees only a tile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im2im_zoo.processing import Operation
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component

if TYPE_CHECKING:
    from torch import nn

# Those that other programs compute differently or lack; the rest is moved only where it is between these and the network.
_TROUBLE = ("scale_linear", "fixed_zero_mean_unit_variance", "softmax")
_WITH_AXES = ("zero_mean_unit_variance", "scale_range", "clip")

Entry = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class InGraph:
    """A network, the remaining recipe around it, and the component that builds it.

    Attributes:
        moved_before, moved_after: the operations that moved into the graph, in front of the network and behind it.
    """

    network: "nn.Module"
    recipe: Recipe
    architecture: Component
    moved_before: tuple[Operation, ...] = ()
    moved_after: tuple[Operation, ...] = ()


def processing_in_graph(made: InGraph) -> InGraph:
    """Move the pointwise operations right before and right behind the network into it, if other programs lack one of them.

    The farthest `scale_linear`, `fixed_zero_mean_unit_variance` or `softmax` that only pointwise operations separate from the
    network moves, with these: clips, sigmoids and casts to float32.
    """
    from im2im_zoo.networks.with_processing import WithProcessing

    source, output = made.recipe.input, made.recipe.output
    in_front = _chain(list(reversed(source.preprocessing)), _BEFORE)
    behind = _chain(output.postprocessing, _AFTER)
    if not in_front and not behind:
        return made
    before = [e for o in reversed(in_front) for e in _entry(o)]
    after = [e for o in behind for e in _entry(o)]
    left = source.preprocessing[: len(source.preprocessing) - len(in_front)]
    recipe = made.recipe.model_copy(
        update={
            "input": source.model_copy(update={"preprocessing": tuple(left)}),
            "output": output.model_copy(
                update={"postprocessing": tuple(output.postprocessing[len(behind) :])}
            ),
        }
    )
    inner = {"callable": made.architecture.callable, "kwargs": made.architecture.kwargs}
    kwargs = {
        "network": inner,
        **({"before": before} if before else {}),
        **({"after": after} if after else {}),
    }
    return InGraph(
        WithProcessing(made.network, before, after).eval(),
        recipe,
        Component(callable=f"{WithProcessing.__module__}.{WithProcessing.__name__}", kwargs=kwargs),
        tuple(reversed(in_front)),
        tuple(behind),
    )


def over_all_channels(recipe: Recipe, channels: int) -> Recipe:
    """Return the recipe with statistics over y and x written as over channel, y and x where there is one channel.

    They are the same numbers, and deepImageJ computes wrong ones for the first form.

    Args:
        recipe: recipe of a model.
        channels: channels of its images; a custom operation may change them, and nothing is done then.
    """
    if channels != 1 or any(o.id == "custom" for o in recipe.input.preprocessing):
        return recipe
    steps = tuple(_widened(o, recipe.input.axes) for o in recipe.input.preprocessing)
    return recipe.model_copy(update={"input": recipe.input.model_copy(update={"preprocessing": steps})})


def _widened(operation: Operation, axes: Sequence[str]) -> Operation:
    have = getattr(getattr(operation, "kwargs", None), "axes", None)
    if operation.id not in _WITH_AXES or have is None or "channel" in map(str, have):
        return operation
    content = operation.model_dump(mode="json", exclude_none=True)
    content["kwargs"]["axes"] = [a for a in axes if a == "channel" or a in map(str, have)]
    widened: Operation = type(operation).model_validate(content)
    return widened


_BEFORE = ("scale_linear", "fixed_zero_mean_unit_variance", "clip")
_AFTER = (*_BEFORE, "softmax", "sigmoid")


def _chain(operations: Sequence[Operation], movable: Sequence[str]) -> list[Operation]:
    """Return the operations nearest to the network that move, the nearest first."""
    nearest: list[Operation] = []
    for operation in operations:
        if not (operation.id in movable and _is_pointwise(operation)) and not _is_float_cast(operation):
            break
        nearest.append(operation)
    while nearest and nearest[-1].id not in _TROUBLE:
        nearest.pop()
    return nearest


def _is_float_cast(operation: Operation) -> bool:
    return operation.id == "ensure_dtype" and operation.kwargs.dtype == "float32"


def _is_pointwise(operation: Operation) -> bool:
    kwargs: Any = getattr(operation, "kwargs", None)
    if operation.id == "clip":
        return kwargs.min_percentile is None and kwargs.max_percentile is None
    if operation.id == "softmax":
        return str(kwargs.axis) == "channel"
    return str(getattr(kwargs, "axis", None) or "channel") == "channel"


def _entry(operation: Operation) -> list[Entry]:
    """Return the operation as an argument of `WithProcessing`; none for a cast."""
    kwargs: Any = getattr(operation, "kwargs", None)
    if operation.id == "scale_linear":
        return [{"linear": {"gain": _numbers(kwargs.gain), "offset": _numbers(kwargs.offset)}}]
    if operation.id == "fixed_zero_mean_unit_variance":
        gain = [1 / std for std in _numbers(kwargs.std)]
        return [{"linear": {"shift": _numbers(kwargs.mean), "gain": gain}}]
    if operation.id == "clip":
        return [{"limits": {"low": kwargs.min, "high": kwargs.max}}]
    return [] if operation.id == "ensure_dtype" else [{operation.id: {}}]


def _numbers(value: Any) -> list[float]:
    return [float(n) for n in value] if isinstance(value, list | tuple) else [float(value)]
