"""Summary of a recipe, and plain values as text: for the command line and for pages."""

from typing import Any

from im2im_zoo.recipe.schema import Recipe


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return the main settings of a recipe as plain values, by their names."""
    return {
        "name": recipe.name,
        "task": recipe.output.task,
        "framework": recipe.framework.callable,
        "network": recipe.network.callable,
        "input": f"{recipe.input.id}: {', '.join(recipe.input.axes)}",
        "preprocessing": [operation_name(op) for op in recipe.input.preprocessing],
        "postprocessing": [operation_name(op) for op in recipe.output.postprocessing],
        **_grouping(recipe),
        "data": f"{recipe.data.path} ({recipe.data.pairing}, split by {recipe.data.split})",
        "patches": _patches(recipe),
        "trainer": dict(recipe.trainer),
        "monitor": f"{recipe.monitor} ({recipe.monitor_mode})",
    }


def _patches(recipe: Recipe) -> str:
    data, chosen = recipe.data, "chosen in training"
    size = chosen if data.patch_size is None else " x ".join(map(str, data.patch_size))
    return f"{size}, {chosen if data.batch_size is None else data.batch_size} a batch"


def _grouping(recipe: Recipe) -> dict[str, Any]:
    component = recipe.output.grouping
    return {} if component is None else {"grouping": f"{component.callable}, {plain_text(component.kwargs)}"}


def operation_name(operation: Any) -> str:
    """Return the name of an operation of the spec; of a custom one, its class."""
    return str(operation.callable if operation.id == "custom" else operation.id)


def plain_text(value: Any) -> str:
    """Return a plain value (mapping, sequence, number, text) as one line of text."""
    if isinstance(value, dict):
        return ", ".join(f"{k}: {plain_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(plain_text(v) for v in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
