"""Train a recipe into a run folder. Builds with `training.build`, keeps the folder of `training.run`."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from im2im_zoo.core.errors import InterruptionError, TrainingError
from im2im_zoo.data import hash_pairs
from im2im_zoo.data.cache.content_hashes import remembered
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.advice import Choice
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.training.build import build_framework, build_trainer_options, check_recipe, check_shapes
from im2im_zoo.training.callbacks import EpochSeed, MetricsTable, PlateauSteps, Reporter, TrainingProgress
from im2im_zoo.training.choose import told, with_patches
from im2im_zoo.training.hard_patches import HardPatches
from im2im_zoo.training.lightning import explained_failures, quiet
from im2im_zoo.training.own_code import check_custom_code, find_modules, keep_own_files, own_files
from im2im_zoo.training.pictures import Pictures
from im2im_zoo.training.run import (
    Run,
    environment,
    git_revision,
    is_run,
    machine,
    network_weights,
    open_run,
    parent_of,
    write_json,
    write_text,
)
from im2im_zoo.training.speed import Faster


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    report: Callable[[TrainingProgress], None] | None = None,
    explain: Callable[[Choice], None] | None = None,
) -> Run:
    """Train a recipe, from the start or from where its run folder is.

    Args:
        recipe: what to learn.
        output: the run folder; see `training.run` for what it holds.
        resume: go on from `checkpoints/last.ckpt`, to the same end as an unbroken run; from the start if there
            is none yet.
        allow_code: packages whose code the recipe may use beside the trusted ones; see `components.resolve_component`. `custom` among
            them allows the sources of its custom operations.
        root: folder of the recipe, in which its own Python files are; the run folder keeps copies of those that it uses.
        report: called with the progress, after batches and at the end of each epoch.
        explain: called with what is chosen for the images and this machine, before training; the run folder says it too.

    Raises:
        Im2ImError: what is wrong with the recipe, the data or the folder; a loss that became NaN; a full disk or
            memory; an interruption. The folder then says so, and its last whole epoch can be resumed.
    """
    find_modules(root, allow_code)
    check_recipe(recipe, allow_code)
    check_custom_code(recipe, root, allow_code)
    # Of the processes of a distributed training, the first keeps the folder; the others only compute.
    first = getattr(rank_zero_only, "rank", 0) == 0  # of which Lightning does not state the type
    if first:
        _check_folder(recipe, output, resume)
    earlier = open_run(output) if resume and is_run(output) else None
    chosen = with_patches(recipe, allow_code, None if earlier is None else earlier.recipe)
    recipe = chosen.recipe
    data = ImagePairs(recipe, allow_code=allow_code, root=root)
    made = (*chosen.choices, *data.choices.values())
    if first and explain is not None:
        for choice in made:
            explain(choice)
    with remembered(data.kept_folder) as content:
        data_hash = hash_pairs(data.pairs, content)
    if first and earlier is not None:
        _check_same(earlier, recipe, data_hash)
    last = output / "checkpoints" / "last.ckpt"
    ckpt = last if resume and last.is_file() else None
    with quiet():
        weights, parent = _first_weights(recipe, allow_code) if ckpt is None else (None, _parent(output))
        pl.seed_everything(recipe.seed, workers=True, verbose=False)
        framework = build_framework(recipe, allow_code, weights)
        options = build_trainer_options(recipe, allow_code)
        data.setup("fit")
        check_shapes(framework, recipe, next(iter(data.val_dataloader())))
        if first:
            keep_own_files(own_files(recipe, root, allow_code), output)
        reasons = told(made) if earlier is None else dict(earlier.provenance.get("chosen", {})) | told(made)
        provenance = _start(recipe, output, data, data_hash, parent, reasons) if first else {}
        state: dict[str, str] = {"state": "complete"}
        try:
            _fit(recipe, output, framework, data, options, ckpt, report if first else None)
        except BaseException as error:
            interrupted = isinstance(error, InterruptionError)
            state = {"state": "interrupted" if interrupted else "failed", "reason": str(error)}
            raise
        finally:
            data.teardown("fit")
            if first:
                write_json(output / "provenance.json", provenance | state)
    return open_run(output)


def _check_folder(recipe: Recipe, output: Path, resume: bool) -> None:
    if resume and not is_run(output) and output.exists() and any(output.iterdir()):
        raise TrainingError(
            f"{output} is no run folder, so nothing can be resumed there; give another --output"
        )
    if not resume and output.exists() and (not output.is_dir() or any(output.iterdir())):
        hint = "--resume goes on with it; " if is_run(output) else ""
        raise TrainingError(f"{output} exists already: {hint}give another --output, or remove it")


def _first_weights(
    recipe: Recipe, allow_code: Collection[str]
) -> tuple[dict[str, torch.Tensor] | None, Mapping[str, str] | None]:
    """The weights of the run that the recipe starts from, and what says which they are."""
    source = recipe.network.init_from
    if source is None:
        return None, None
    if not is_run(source):
        raise TrainingError(
            f"network.init_from: {source} is no run folder; give the --output of `im2im-zoo train`"
        )
    run = open_run(source)
    return network_weights(run, allow_code), parent_of(run)


def _parent(output: Path) -> Mapping[str, str] | None:
    """Which weights a run that is resumed has started from."""
    parent: Mapping[str, str] | None = open_run(output).provenance.get("parent")
    return parent


def _check_same(run: Run, recipe: Recipe, data_hash: str) -> None:
    """A run may only be resumed by the same recipe on the same data; only its length may change."""
    before, now = (_comparable(r) for r in (run.recipe, recipe))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        key = differing[0]
        raise TrainingError(
            f"{run.path} was trained by another recipe: {', '.join(differing)} differ "
            f"({key}: {before.get(key)!r} then, {now.get(key)!r} now); resume with the same, or give another --output"
        )
    if run.provenance["data"]["sha256"] != data_hash:
        raise TrainingError(
            f"{run.path} was trained on other images: their hash differs; give another --output"
        )


def _comparable(recipe: Recipe) -> dict[str, object]:
    flat: dict[str, object] = {}

    def flatten(node: object, key: str) -> None:
        if isinstance(node, dict) and node:
            for k, v in node.items():
                flatten(v, f"{key}.{k}" if key else str(k))
        else:
            flat[key] = node

    flatten(_absolute(recipe).model_dump(mode="json", exclude={"package"}), "")
    free = (
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.max_time",
        "data.path",
        "data.workers",
        "data.cache",
        "data.cache_gb",
    )
    return {k: v for k, v in flat.items() if k not in free}


def _absolute(recipe: Recipe) -> Recipe:
    """The recipe with paths that mean the same in any folder."""
    data, network = recipe.data, recipe.network
    named = data.cache in ("temporary", "kept", "none")
    cache = data.cache if named else str(Path(data.cache).expanduser().resolve())
    data = data.model_copy(update={"path": data.path.resolve(), "cache": cache})
    if network.init_from is not None:
        network = network.model_copy(update={"init_from": network.init_from.resolve()})
    return recipe.model_copy(update={"data": data, "network": network})


def _start(
    recipe: Recipe,
    output: Path,
    data: ImagePairs,
    data_hash: str,
    parent: Mapping[str, str] | None,
    chosen: Mapping[str, str],
) -> dict[str, Any]:
    """Write what is known before training, and return the provenance."""
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "recipe.yaml", dump_recipe(_absolute(recipe)))
    (output / "environment.txt").write_text("\n".join(environment()) + "\n", encoding="utf-8")
    pairs = data.pairs
    lone = {"train_targets": [stem_of(path) for path in pairs.targets]} if pairs.targets else {}
    provenance: dict[str, Any] = {
        "state": "running",
        **machine(),
        "git_revision": git_revision(Path(__file__).parent),
        "data": {
            "sha256": data_hash,
            "train": [*(pair.name for pair in pairs.train), *(stem_of(path) for path in pairs.inputs)],
            **lone,
            "validation": [pair.name for pair in pairs.validation],
        },
        "chosen": dict(chosen),
    }
    if parent is not None:
        provenance["parent"] = dict(parent)
    write_json(output / "provenance.json", provenance)
    return provenance


def _fit(
    recipe: Recipe,
    output: Path,
    framework: pl.LightningModule,
    data: ImagePairs,
    options: dict[str, Any],
    ckpt: Path | None,
    report: Callable[[TrainingProgress], None] | None,
) -> None:
    checkpoints = output / "checkpoints"
    monitor, mode = recipe.monitor, recipe.monitor_mode
    # In an epoch after which nothing is validated, there is no figure yet, or an older one.
    every = (options.get("check_val_every_n_epoch") if monitor.startswith("val_") else None) or 1
    keep: dict[str, Any] = {
        "dirpath": checkpoints,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks = [
        EpochSeed(recipe.seed),
        PlateauSteps(),
        Faster.of(recipe.network),
        MetricsTable(output / "metrics.csv"),
        Pictures(output / "pictures", whole_batches=recipe.network.compile),
        *([HardPatches(data)] if recipe.data.hard_patches else []),
        *([Reporter(report)] if report else []),
        *options.pop("callbacks"),
        ModelCheckpoint(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            every_n_epochs=every,
            **keep,
        ),
        ModelCheckpoint(filename="last", **keep),
    ]
    defaults: dict[str, Any] = {
        "logger": TensorBoardLogger(output, name="tensorboard", version=""),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
    }
    try:
        trainer = pl.Trainer(
            **defaults | options,
            callbacks=callbacks,
            default_root_dir=output,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise TrainingError(f"trainer: {error}") from error
    with explained_failures(recipe, output):
        trainer.fit(framework, datamodule=data, ckpt_path=ckpt, weights_only=True)
