"""The run folder, which training writes and `export`, `show` and `--resume` read.

RUN/
  recipe.yaml          the resolved recipe
  provenance.json      versions, git revision, hash and names of the data, machine, state of the run
  environment.txt      every installed distribution and its version
  metrics.csv          one row an epoch
  checkpoints/         best.ckpt (by the recipe's `monitor`), last.ckpt
  tensorboard/         event files
  pictures/            a few held-out patches and the network's output after some epochs
  run.html             a page of all results; written by `workflows.training`
  *.py                 copies of the recipe's own Python files
"""

import csv
import json
import os
import pickle
import platform
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines.state_dict import explain_unpickling
from im2im_zoo.frameworks.base import Framework
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe

# What all runs record, and its types.
_PROVENANCE: Mapping[str, type | tuple[type, ...]] = {
    "state": str,
    "data": dict,
    "versions": dict,
    "git_revision": (str, type(None)),
}


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A trained or interrupted run, read from its folder.

    Attributes:
        path: the run folder.
        recipe: with all its settings.
        provenance: the content of `provenance.json`.
        metrics: one row an epoch.
    """

    path: Path
    recipe: Recipe
    provenance: Mapping[str, Any]
    metrics: tuple[Mapping[str, float], ...]

    def checkpoint(self, which: Literal["best", "last"] = "best") -> Path:
        """Return the path of a checkpoint.

        Raises:
            TrainingError: it does not exist.
        """
        path = self.path / "checkpoints" / f"{which}.ckpt"
        if not path.is_file():
            raise TrainingError(
                f"{path} does not exist, because no epoch of this run was completed; resume it with --resume"
            )
        return path


def best_row(run: TrainingRun) -> dict[str, float] | None:
    """Return the metrics of the epoch of the best checkpoint; None if no epoch has the monitored metric."""
    rows = [dict(row) for row in run.metrics if run.recipe.monitor in row]
    choose = min if run.recipe.monitor_mode == "min" else max
    return choose(rows, key=lambda row: row[run.recipe.monitor]) if rows else None


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder."""
    return (path / "recipe.yaml").is_file() and (path / "provenance.json").is_file()


def open_run(path: str | Path) -> TrainingRun:
    """Read a run folder.

    Raises:
        TrainingError: the folder is not a run folder.
        RecipeError: its recipe is invalid.
    """
    path = Path(path)
    if not is_run(path):
        raise TrainingError(
            f"{path} is not a run folder: it lacks recipe.yaml or provenance.json; give the --output of `im2im-zoo train`"
        )
    provenance = _read_provenance(path / "provenance.json")
    return TrainingRun(
        path, load_recipe(path / "recipe.yaml"), provenance, read_metrics(path / "metrics.csv")
    )


def _read_provenance(path: Path) -> dict[str, Any]:
    """Read the provenance of a run, and check what all readers of runs need of it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {type(content).__name__}, not keys with values")
        for key, kind in _PROVENANCE.items():
            if key not in content:
                raise ValueError(f"it has no {key!r}")
            if not isinstance(content[key], kind):
                raise ValueError(f"its {key!r} is {content[key]!r}")
        if missing := {"sha256", "train", "validation"} - content["data"].keys():
            raise ValueError(f"its 'data' has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{path} is damaged: {error}; copy the run again from where it was trained, or train again"
        ) from error
    return content


def read_metrics(path: Path) -> tuple[dict[str, float], ...]:
    """Read the rows of a metrics CSV as numbers; () if there is no such file.

    Raises:
        TrainingError: it holds anything else; the message names the row and the column.
    """
    if not path.is_file():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_read_row(number, row) for number, row in enumerate(csv.DictReader(file), 1))
    except (OSError, ValueError, csv.Error) as error:
        raise TrainingError(
            f"{path} is damaged: {error}; copy it again from where the run was trained, or remove it to do without its metrics"
        ) from error


def _read_row(number: int, row: Mapping[str | None, Any]) -> dict[str, float]:
    """Return the numbers of a row by their columns."""
    found = {}
    for column, text in row.items():
        if not text:
            continue
        try:
            found[str(column)] = float(text)
        except (TypeError, ValueError):
            what = "has more values than columns" if column is None else f"has {text!r} as its {column!r}"
            raise ValueError(f"row {number} {what}") from None
    return found


def load_framework(
    run: TrainingRun, which: Literal["best", "last"] = "best", allow_code: Collection[str] = ()
) -> Framework:
    """Load the trained framework of a run, on the CPU, in evaluation mode.

    Args:
        run: the run.
        which: the checkpoint.
        allow_code: see `components.resolve_component`.

    Raises:
        TrainingError: the checkpoint is missing, damaged, or of another network.
        ComponentError: a component of the recipe cannot be built.
    """
    from im2im_zoo.training.build import build_framework, check_recipe
    from im2im_zoo.training.own_code import allow_modules

    allow_modules(run.path, allow_code)
    check_recipe(run.recipe, allow_code)
    framework, path = build_framework(run.recipe, allow_code), run.checkpoint(which)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        framework.load_state_dict(checkpoint["state_dict"], strict=True)
    except (RuntimeError, KeyError, OSError, EOFError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be loaded into the recipe's network: {error}; it is damaged or of another recipe: train again"
        ) from error
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"{path} holds more than weights and is not loaded, as it could run code: {explain_unpickling(error)}; train again"
        ) from error
    return framework.eval()


def load_network_weights(run: TrainingRun, allow_code: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Load the state dict of a run's network from its best checkpoint, with the names of the recipe's network.

    Raises:
        TrainingError, ComponentError: as `load_framework`.
    """
    framework = load_framework(run, "best", allow_code)
    # The exported network may have more around the recipe's network, e.g. an activation.
    network = getattr(framework, "network", None)
    weights: dict[str, torch.Tensor] = (
        network if network is not None else framework.exported_network()
    ).state_dict()
    return weights


def describe_parent(run: TrainingRun) -> dict[str, str]:
    """Return the provenance of weights taken from this run: recipe, data and checkpoint."""
    return {
        "recipe": run.recipe.name,
        "data_sha256": run.provenance["data"]["sha256"],
        "checkpoint_sha256": sha256(run.checkpoint("best")),
    }


def list_distributions() -> list[str]:
    """Return every installed distribution as `name==version`, sorted."""
    every = [d.metadata for d in metadata.distributions()]  # each property reads and parses the file again
    found = {(m["Name"] or "").lower(): m["Version"] for m in every}
    return sorted(f"{name}=={version}" for name, version in found.items() if name)


def describe_machine() -> dict[str, object]:
    """Return versions, system, processors and accelerator of this machine, without names of users or hosts."""
    versions = {name: metadata.version(name) for name in ("im2im_zoo", "torch", "pytorch-lightning", "monai")}
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": versions | {"python": platform.python_version()},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "accelerator": accelerator,
    }


def git_revision(folder: Path) -> str | None:
    """Return the commit of `folder`, with `-dirty` if tracked files are changed; None outside a git repository."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if revision and changed else revision
