"""Move a softmax right behind the network into its graph, for programs that lack the operation. Results stay the same."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InGraph:
    """A network, the remaining recipe around it, and the component that builds it."""

    network: "nn.Module"
    recipe: Recipe
    architecture: Component


def softmax_in_graph(made: InGraph) -> InGraph:
    """Move a softmax over channels from the start of the postprocessing into the network, if there is one."""
    from im2im_zoo.networks.with_softmax import WithSoftmax

    steps = made.recipe.output.postprocessing
    if not steps or steps[0].id != "softmax" or str(steps[0].kwargs.axis) != "channel":
        return made
    output = made.recipe.output.model_copy(update={"postprocessing": tuple(steps[1:])})
    inner = {"callable": made.architecture.callable, "kwargs": made.architecture.kwargs}
    path = f"{WithSoftmax.__module__}.{WithSoftmax.__name__}"
    return InGraph(
        WithSoftmax(made.network).eval(),
        made.recipe.model_copy(update={"output": output}),
        Component(callable=path, kwargs={"network": inner}),
    )
