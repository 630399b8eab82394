"""Running of `im2im-zoo new`: survey, questions on a terminal, and the recipe."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_json, print_line, print_table
from im2im_zoo.core.atomic import write_text
from im2im_zoo.core.errors import RecipeError

if TYPE_CHECKING:
    from im2im_zoo.workflows.new_recipe.recipe_text import NewRecipe, Person, Task
    from im2im_zoo.workflows.new_recipe.survey import ImageSurvey


@dataclass(frozen=True, slots=True)
class NewOptions:
    """Options of `new`."""

    task: str | None
    output: Path | None
    images: str | None
    targets: str | None
    axes: str | None
    target_axes: str | None
    name: str | None
    authors: Sequence[str]
    license: str | None
    overwrite: bool
    as_json: bool


def run(folder: Path, options: NewOptions) -> None:
    """Survey a folder, ask what is not given, and write the recipe."""
    from im2im_zoo.packaging.editing.entries import check_license
    from im2im_zoo.workflows.new_recipe.recipe_text import TASKS, suggest_name, suggest_task, write_recipe
    from im2im_zoo.workflows.new_recipe.survey import survey_images

    if options.task is not None and options.task not in TASKS:
        raise typer.BadParameter(
            f"{options.task!r} is not supported; choose one of {', '.join(TASKS)}", param_hint="--task"
        )
    if options.license is not None:
        check_license(options.license)
    authors = _parse(options.authors)
    output = options.output or Path(f"{_file_name(folder)}.yaml")
    if output.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{output} is not a .yaml file", param_hint="--output")
    if output.exists() and not options.overwrite:
        raise RecipeError(f"{output} already exists; give another --output, or add --overwrite")
    survey = survey_images(
        folder,
        images=options.images,
        targets=options.targets,
        paired=options.task != "denoise",
        axes=options.axes,
        target_axes=options.target_axes,
    )
    if not options.as_json:
        print_table(("found", str(folder)), survey.rows())
    task = next((t for t in TASKS if t == options.task), None) or _ask_task(suggest_task(survey))
    if task == "denoise" and survey.layout.has_targets:
        survey = survey_images(folder, paired=False, axes=options.axes)
    if not authors and _on_terminal(options):
        answer = typer.prompt(
            "Your name, as author of the model (empty: later)", default="", show_default=False
        )
        authors = _parse([answer] if answer.strip() else [])
    gpu = _has_gpu()
    # Refusals before anything is written.
    title = options.name or suggest_name(survey, task)

    def write() -> "NewRecipe":
        return write_recipe(survey, task, name=title, authors=authors, license_id=options.license, gpu=gpu)

    made = write()
    if survey.validation == 0:
        survey = _cut(survey, output)
        made = write()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, made.text)
    _finish(output, task, survey, options)


def _finish(output: Path, task: "Task", survey: "ImageSurvey", options: NewOptions) -> None:
    """Print what was written and the next commands."""
    stem = output.with_suffix("")
    run_folder, package = shlex.quote(f"{stem}_run"), shlex.quote(f"{stem}_model")
    objects = " --objects objects.csv" if task == "objects" else ""
    commands = [
        f"im2im-zoo train {shlex.quote(str(output))} --output {run_folder}",
        f"im2im-zoo export {run_folder} --output {package}",
        f"im2im-zoo predict {package} IMAGE result.ome.zarr{objects}",
    ]
    if options.as_json:
        print_json({"recipe": str(output), "task": task, **survey.plain(), "next": commands})
        return
    if survey.target == "binary mask" and task == "objects":
        print_line(
            "note: the targets are binary masks, so objects that touch count as one; number them to tell them apart"
        )
    print_line(f"Wrote {output} ({survey.train} to train, {survey.validation} to validate)")
    print_line("Next: " + "\n      ".join(commands))


def _cut(survey: "ImageSurvey", output: Path) -> "ImageSurvey":
    """Cut the only pair in two, into a folder beside the recipe."""
    from im2im_zoo.workflows.new_recipe.cut import cut_single_pair

    folder = output.with_name(f"{output.stem}_images")
    cut = cut_single_pair(survey, folder)
    print_line(
        f"There is one image only: wrote three quarters of it to train and the rest to validate into {folder}"
    )
    return cut


def _parse(texts: Sequence[str]) -> "list[Person]":
    from im2im_zoo.packaging.editing.entries import parse_person
    from im2im_zoo.workflows.new_recipe.recipe_text import Person

    return [Person(parse_person(text, option="--author")) for text in texts]


def _ask_task(suggested: "Task") -> "Task":
    """Ask for the task on a terminal.

    Raises:
        BadParameter: there is no terminal.
    """
    from im2im_zoo.workflows.new_recipe.recipe_text import TASKS, WORDS

    lines = "\n".join(f"  {task}: {WORDS[task]}" for task in TASKS)
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"--task is missing: choose one ({suggested} suits these images)\n{lines}", param_hint="--task"
        )
    print_line(f"Tasks:\n{lines}")
    while True:
        answer: str = typer.prompt("Task", default=suggested)
        if answer in TASKS:
            return answer
        print_line(f"{answer!r} is none of these")


def _on_terminal(options: NewOptions) -> bool:
    return sys.stdin.isatty() and not options.as_json


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _file_name(folder: Path) -> str:
    name = folder.resolve()
    return re.sub(r"[^\w.\-]+", "_", name.stem if name.is_file() else name.name) or "recipe"
