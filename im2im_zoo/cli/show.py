"""`im2im-zoo show`: what a package, a run or a recipe is, without running anything of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from im2im_zoo.cli.console import print_json, print_table
from im2im_zoo.core.errors import Im2ImError, RecipeError
from im2im_zoo.package.remote import is_address
from im2im_zoo.recipe.load import load_recipe, recipe_names
from im2im_zoo.recipe.summary import operation_name, plain_text, recipe_facts


def run(source: str, as_json: bool) -> None:
    """Describe what stands at a path or under a name."""
    content = describe(source)
    if as_json:
        print_json(content)
    else:
        print_table(
            (str(content.pop("kind")), ""), [(key, plain_text(value)) for key, value in content.items()]
        )


def describe(source: str) -> dict[str, Any]:
    """What a package, a run or a recipe is, as plain values.

    Raises:
        Im2ImError: it is none of them.
    """
    path = Path(source)
    if (path / "provenance.json").is_file():
        return _run(source)
    if (
        source in recipe_names()
        or (path.is_file() and _holds_framework(path))
        or ((path / "recipe.yaml").is_file() and not (path / "rdf.yaml").is_file())
    ):
        return {"kind": "recipe", **recipe_facts(load_recipe(source))}
    try:
        return _package(source)
    except Im2ImError as error:
        if is_address(source) or path.exists():
            raise
        raise RecipeError(
            f"{source!r} is no package, run or recipe; recipes: {', '.join(recipe_names())}"
        ) from error


def _holds_framework(path: Path) -> bool:
    """Whether a YAML file looks like a recipe rather than an RDF."""
    if path.suffix not in (".yaml", ".yml"):
        return False
    return any(line.startswith("framework:") for line in path.read_text(encoding="utf-8").splitlines())


def _run(source: str) -> dict[str, Any]:
    from im2im_zoo.training.run import open_run

    run = open_run(source)
    data = run.provenance["data"]
    return {
        "kind": "run",
        "state": run.provenance["state"],
        **recipe_facts(run.recipe),
        "epochs": len(run.metrics),
        "best": run.best_row(),
        "training images": len(data["train"]),
        "validation images": len(data["validation"]),
        "data sha256": data["sha256"],
        "git revision": run.provenance["git_revision"],
        "versions": run.provenance["versions"],
    }


def _package(source: str) -> dict[str, Any]:
    from im2im_zoo.package import open_package

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
        "weights": list(package.weights),
        "license": str(model.license) if model.license else None,
        "authors": [author.name for author in model.authors],
        "tags": list(model.tags),
        "source": package.source,
    }


def _tensor(tensor: Any, before: Sequence[Any] = ()) -> dict[str, Any]:
    operations = getattr(tensor, "preprocessing", None) or getattr(tensor, "postprocessing", None) or ()
    return {
        "id": str(tensor.id),
        "axes": {str(axis.id): _size(axis) for axis in tensor.axes},
        "processing": [operation_name(op) for op in (*before, *operations)],
    }


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
