"""Description of a package, a run or a recipe as plain values. No code of it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import Im2ImError, RecipeError
from im2im_zoo.package import Package, open_package
from im2im_zoo.package.remote import is_address
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe, recipe_names
from im2im_zoo.recipe.placeholders import is_open


def describe(source: str) -> dict[str, Any]:
    """Describe a package, a run or a recipe as plain values, `kind` first.

    Args:
        source: folder, file, zip, name or address.

    Raises:
        Im2ImError: the source is none of them.
    """
    path = Path(source)
    if (path / "provenance.json").is_file():
        return _run(source)
    if (
        source in recipe_names()
        or (path.is_file() and _holds_framework(path))
        or ((path / "recipe.yaml").is_file() and not (path / "rdf.yaml").is_file())
    ):
        return {"kind": "recipe", **facts_of_recipe(load_recipe(source))}
    try:
        return _package(source)
    except Im2ImError as error:
        if is_address(source) or path.exists():
            raise
        raise RecipeError(
            f"{source!r} is not a package, run or recipe; recipes: {', '.join(recipe_names())}"
        ) from error


def _holds_framework(path: Path) -> bool:
    """Return whether a YAML file is a recipe rather than an RDF."""
    if path.suffix not in (".yaml", ".yml"):
        return False
    return any(line.startswith("framework:") for line in path.read_text(encoding="utf-8").splitlines())


def facts_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Summarize a recipe as plain values."""
    return {
        "name": recipe.name,
        "task": recipe.output.task,
        "framework": recipe.framework.callable,
        "network": recipe.network.callable,
        "input": f"{recipe.input.id}: {', '.join(recipe.input.axes)}",
        "preprocessing": [_operation(op) for op in recipe.input.preprocessing],
        "postprocessing": [_operation(op) for op in recipe.output.postprocessing],
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
    return {} if component is None else {"grouping": f"{component.callable}, {text_of(component.kwargs)}"}


def _run(source: str) -> dict[str, Any]:
    from im2im_zoo.training.run import best_row, open_run

    run = open_run(source)
    data = run.provenance["data"]
    return {
        "kind": "run",
        "state": run.provenance["state"],
        **facts_of_recipe(run.recipe),
        "epochs": len(run.metrics),
        "best": best_row(run),
        "training images": len(data["train"]),
        "validation images": len(data["validation"]),
        "data sha256": data["sha256"],
        "git revision": run.provenance["git_revision"],
        "versions": run.provenance["versions"],
    }


def _package(source: str) -> dict[str, Any]:
    package = open_package(source)
    model = package.description
    return {
        "kind": "package",
        "name": package.name,
        "version": package.version,
        "format": package.raw.get("format_version"),
        "description": model.description,
        "inputs": [_tensor(t, package.before_rdf.get(str(t.id), ())) for t in package.inputs],
        "outputs": [_tensor(t) for t in package.outputs],
        **({} if package.grouping is None else {"grouping": package.grouping.to_json()}),
        **_inside_the_network(package),
        "weights": list(package.weights),
        "license": str(model.license) if model.license else None,
        "authors": [author.name for author in model.authors],
        "tags": list(model.tags),
        "source": package.source,
    }


def _inside_the_network(package: Package) -> dict[str, Any]:
    """Return the names of the operations that `export` moved into the network's graph, in front of its layers and behind."""
    found: Any = package.raw
    for key in ("config", "im2im_zoo", "in_graph"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return {}
    lists = {k: v for k, v in found.items() if k in ("before", "after") and isinstance(v, list)}
    names = {k: [str(o["id"]) for o in v if isinstance(o, dict) and "id" in o] for k, v in lists.items()}
    return {"inside_the_network": {k: v for k, v in names.items() if v}}


def _tensor(tensor: Any, before: Sequence[Any] = ()) -> dict[str, Any]:
    operations = getattr(tensor, "preprocessing", None) or getattr(tensor, "postprocessing", None) or ()
    return {
        "id": str(tensor.id),
        "axes": {str(axis.id): _size(axis) for axis in tensor.axes},
        "processing": [_operation(op) for op in (*before, *operations)],
    }


def _operation(operation: Any) -> str:
    name = str(operation.callable if operation.id == "custom" else operation.id)
    return f"{name} (measured in training)" if is_open(operation) else name


def _size(axis: Any) -> str:
    size = getattr(axis, "size", None)
    halo = f", halo {axis.halo}" if getattr(axis, "halo", 0) else ""
    if isinstance(size, int) or size is None:
        names = getattr(axis, "channel_names", None)
        return (", ".join(map(str, names)) if names else str(size or "any")) + halo
    if hasattr(size, "step"):
        return f"{size.min} + n x {size.step}{halo}"
    if hasattr(size, "tensor_id"):
        return f"as {size.tensor_id}.{size.axis_id}" + (f" + {size.offset}" if size.offset else "") + halo
    return str(size) + halo


def text_of(value: Any) -> str:
    """Format a plain value for users."""
    if isinstance(value, dict):
        return ", ".join(f"{k}: {text_of(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(text_of(v) for v in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
