"""`im2im-zoo recipe`: included recipes, and the JSON Schema of a recipe."""

import json
import sys
from pathlib import Path

import typer

from im2im_zoo.cli.console import print_line, print_table
from im2im_zoo.core.atomic import write_text
from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import copied_text, find_recipe, load_recipe, recipe_names


def run(list_recipes: bool, schema: bool, copy: str | None) -> None:
    """List the recipes, print the JSON Schema, or copy a recipe into this folder."""
    if schema:
        sys.stdout.write(json.dumps(Recipe.model_json_schema(), indent=2) + "\n")
    elif copy:
        source, target = find_recipe(copy), Path(f"{copy}.yaml")
        if target.exists():
            raise RecipeError(f"{target} already exists; remove it, or run the command in another folder")
        write_text(target, copied_text(source.read_text(encoding="utf-8")))
        print_line(f"Wrote {target}; train it with: im2im-zoo train {target} --output RUN")
    elif list_recipes:
        rows = []
        for name, path in recipe_names().items():
            recipe = load_recipe(path)
            rows.append((name, f"{len(recipe.space)}D", recipe.output.task, recipe.name))
        print_table(("recipe", "dims", "task", "name"), rows)
    else:
        raise typer.BadParameter("an option is missing: add --list, --schema or --copy NAME")
