"""Training of a recipe into a run folder (see `training.run`), from the start or resumed."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from im2im_zoo.core.atomic import remove_leftovers_in, write_json, write_text
from im2im_zoo.core.errors import InterruptionError, TrainingError
from im2im_zoo.core.nested import walk_values
from im2im_zoo.data import hash_pairs
from im2im_zoo.data.cache.content_hashes import remember_hashes
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.pairing.image_pair import open_image_pair, open_side_image
from im2im_zoo.data.pairing.pairs import Pairs
from im2im_zoo.data.patches.advice import Choice
from im2im_zoo.data.statistics import FilledRecipe, fill_statistics, list_far_numbers
from im2im_zoo.images.colours import names_of
from im2im_zoo.images.names import stem_of
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.training.auto_configure import configure_patches, reasons_by_key
from im2im_zoo.training.build import build_framework, build_trainer_options, check_recipe, check_shapes
from im2im_zoo.training.callbacks import (
    AtomicCheckpoints,
    EpochSeed,
    MetricsTable,
    PatchLossRecorder,
    PlateauSteps,
    ProgressReporter,
    TrainingProgress,
)
from im2im_zoo.training.failures import explain_failures, silence_lightning
from im2im_zoo.training.grouped_labels import PatchLabeler, make_patch_labeler
from im2im_zoo.training.own_code import allow_modules, check_custom_code, copy_own_files, find_own_files
from im2im_zoo.training.pictures import SnapshotRecorder
from im2im_zoo.training.run import (
    TrainingRun,
    describe_machine,
    describe_parent,
    git_revision,
    is_run,
    list_distributions,
    load_network_weights,
    open_run,
)
from im2im_zoo.training.speed import NetworkSpeedup


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    report: Callable[[TrainingProgress], None] | None = None,
    explain: Callable[[Choice], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainingRun:
    """Train a recipe, from the start or resumed.

    Args:
        recipe: the recipe.
        output: the run folder; `training.run` describes its content.
        resume: continue from `checkpoints/last.ckpt`, with the same result as an uninterrupted run; from the start if there
            is none yet.
        allow_code: packages whose code the recipe may use besides the trusted ones; see `components.resolve_component`. `custom`
            among them allows the sources of its custom operations.
        root: folder of the recipe and its own Python files; the run folder keeps copies of those that it uses.
        report: called with the progress, after batches and at the end of each epoch.
        explain: called before training with each value selected for the images and this machine; the run folder records them.
        warn: called before training with a message for each number of the recipe that is far from the images'.

    Returns:
        The run.

    Raises:
        Im2ImError: an invalid recipe, data or folder; a loss that became NaN; a full disk or memory; an interruption. The
            provenance then records it, and the last complete epoch can be resumed.
    """
    allow_modules(root, allow_code)
    check_recipe(recipe, allow_code)
    check_custom_code(recipe, root, allow_code)
    # In a distributed training the first process writes the folder; the others only compute.
    first = getattr(rank_zero_only, "rank", 0) == 0  # Lightning does not declare its type
    if first:
        _check_folder(recipe, output, resume)
    earlier = open_run(output) if resume and is_run(output) else None
    before = None if earlier is None else earlier.recipe
    if first and warn is not None and before is None:
        for message in list_far_numbers(recipe, allow_code, root):
            warn(message)
    filled = fill_statistics(recipe, allow_code, root, before)
    chosen = configure_patches(filled.recipe, allow_code, before)
    recipe = chosen.recipe
    data = ImagePairs(recipe, allow_code=allow_code, root=root)
    made = (*_number_choices(filled), *chosen.choices, *data.choices.values())
    if first and explain is not None:
        for choice in made:
            explain(choice)
    with remember_hashes(data.kept_folder) as content:
        data_hash = hash_pairs(data.pairs, content)
    if first and earlier is not None:
        _check_unchanged(earlier, recipe, data_hash)
    last = output / "checkpoints" / "last.ckpt"
    ckpt = last if resume and last.is_file() else None
    with silence_lightning():
        weights, parent = (
            _load_initial_weights(recipe, allow_code) if ckpt is None else (None, _read_parent(output))
        )
        pl.seed_everything(recipe.seed, workers=True, verbose=False)
        framework = build_framework(recipe, allow_code, weights)
        options = build_trainer_options(recipe, output, allow_code)
        data.setup("fit")
        check_shapes(framework, recipe, next(iter(data.val_dataloader())))
        reasons = (
            reasons_by_key(made)
            if earlier is None
            else dict(earlier.provenance.get("chosen", {})) | reasons_by_key(made)
        )
        own = find_own_files(recipe, root, allow_code)
        provenance = _write_start(recipe, output, data, data_hash, parent, reasons, own) if first else {}
        state: dict[str, str] = {"state": "complete"}
        try:
            label = make_patch_labeler(recipe, allow_code)
            _fit(recipe, output, framework, data, options, ckpt, report if first else None, label)
        except BaseException as error:
            interrupted = isinstance(error, InterruptionError)
            state = {"state": "interrupted" if interrupted else "failed", "reason": str(error)}
            raise
        finally:
            data.teardown("fit")
            if first:
                write_json(output / "provenance.json", provenance | state, durable=True, indent=2)
    return open_run(output)


def _number_choices(filled: FilledRecipe) -> tuple[Choice, ...]:
    """Return the measured numbers as choices, which are printed and recorded."""
    return tuple(
        Choice(f"{n.side}.preprocessing.{n.place}.kwargs", n.text, f"measured on {n.described}")
        for n in filled.numbers
    )


def _check_folder(recipe: Recipe, output: Path, resume: bool) -> None:
    for folder in (output, output / "checkpoints", output / "pictures"):
        remove_leftovers_in(folder)
    # Killed before all of its first files were written: it starts from the beginning.
    has_begun = is_run(output) or (output / "provenance.json").is_file()
    if resume and not has_begun and output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not a run folder and cannot be resumed; give another --output")
    if not resume and output.exists() and (not output.is_dir() or any(output.iterdir())):
        hint = "resume it with --resume, " if has_begun else ""
        raise TrainingError(f"{output} already exists: {hint}give another --output, or remove it")


def _load_initial_weights(
    recipe: Recipe, allow_code: Collection[str]
) -> tuple[dict[str, torch.Tensor] | None, Mapping[str, str] | None]:
    """Load the weights of the run that the recipe starts from, and their provenance."""
    source = recipe.network.init_from
    if source is None:
        return None, None
    if not is_run(source):
        raise TrainingError(
            f"network.init_from: {source} is not a run folder; give the --output of `im2im-zoo train`"
        )
    run = open_run(source)
    return load_network_weights(run, allow_code), describe_parent(run)


def _read_parent(output: Path) -> Mapping[str, str] | None:
    """Return the provenance of the weights that a resumed run started from."""
    parent: Mapping[str, str] | None = open_run(output).provenance.get("parent")
    return parent


def _check_unchanged(run: TrainingRun, recipe: Recipe, data_hash: str) -> None:
    """Refuse to resume a run with another recipe or other data; only its length may change."""
    before, now = (_flatten_comparable(r) for r in (run.recipe, recipe))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        key = differing[0]
        raise TrainingError(
            f"{run.path} cannot be resumed because its recipe differs in {', '.join(differing)} "
            f"({key}: {before.get(key)!r} then, {now.get(key)!r} now); resume with the same recipe, or give another --output"
        )
    if run.provenance["data"]["sha256"] != data_hash:
        raise TrainingError(
            f"{run.path} cannot be resumed because it was trained on other images: their hash differs; give another --output"
        )


def _flatten_comparable(recipe: Recipe) -> dict[str, object]:
    free = (
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.max_time",
        "data.path",
        "data.workers",
        "data.cache",
        "data.cache_gb",
    )
    values = walk_values(_make_paths_absolute(recipe).model_dump(mode="json", exclude={"package"}))
    # Lists are compared as a whole.
    return {k: v for k, v in values if k not in free and "[" not in k and not (v and isinstance(v, dict))}


def _make_paths_absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths."""
    data, network = recipe.data, recipe.network
    named = data.cache in ("temporary", "kept", "none")
    cache = data.cache if named else str(Path(data.cache).expanduser().resolve())
    data = data.model_copy(update={"path": data.path.resolve(), "cache": cache})
    if network.init_from is not None:
        network = network.model_copy(update={"init_from": network.init_from.resolve()})
    return recipe.model_copy(update={"data": data, "network": network})


def _write_start(
    recipe: Recipe,
    output: Path,
    data: ImagePairs,
    data_hash: str,
    parent: Mapping[str, str] | None,
    chosen: Mapping[str, str],
    own: dict[str, Path],
) -> dict[str, Any]:
    """Write the provenance, the recipe and its own files before training, and return the provenance.

    The provenance comes first and the recipe last: what a kill leaves is either a run, or known as the beginning of one.
    """
    output.mkdir(parents=True, exist_ok=True)
    pairs = data.pairs
    lone = {"train_targets": [stem_of(path) for path in pairs.targets]} if pairs.targets else {}
    provenance: dict[str, Any] = {
        "state": "running",
        **describe_machine(),
        "git_revision": git_revision(Path(__file__).parent),
        "data": {
            "sha256": data_hash,
            "train": [*(pair.name for pair in pairs.train), *(stem_of(path) for path in pairs.inputs)],
            **lone,
            "validation": [pair.name for pair in pairs.validation],
            "channels": _channel_names(recipe, pairs),
        },
        "chosen": dict(chosen),
    }
    if parent is not None:
        provenance["parent"] = dict(parent)
    write_json(output / "provenance.json", provenance, durable=True, indent=2)
    write_text(output / "environment.txt", "\n".join(list_distributions()) + "\n", durable=True)
    copy_own_files(own, output)
    write_text(output / "recipe.yaml", dump_recipe(_make_paths_absolute(recipe)), durable=True)
    return provenance


def _channel_names(recipe: Recipe, pairs: Pairs) -> dict[str, list[str]]:
    """Return the names of the channels of the first images, where their files have some, for pictures of the run."""
    if pairs.train:
        first = open_image_pair(pairs.train[0], recipe)
        images = {"input": first.input, "target": first.target}
    else:
        images = {
            "input": open_side_image(pairs.inputs[0], recipe, "input"),
            "target": open_side_image(pairs.targets[0], recipe, "target"),
        }
    return {side: list(names) for side, image in images.items() if (names := names_of(image))}


def _fit(
    recipe: Recipe,
    output: Path,
    framework: pl.LightningModule,
    data: ImagePairs,
    options: dict[str, Any],
    ckpt: Path | None,
    report: Callable[[TrainingProgress], None] | None,
    label: PatchLabeler | None,
) -> None:
    checkpoints = output / "checkpoints"
    monitor, mode = recipe.monitor, recipe.monitor_mode
    # In an epoch without validation there is no metric yet, or an older one.
    every = (options.get("check_val_every_n_epoch") if monitor.startswith("val_") else None) or 1
    keep: dict[str, Any] = {
        "dirpath": checkpoints,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks = [
        EpochSeed(recipe.seed),
        PlateauSteps(),
        NetworkSpeedup.from_recipe(recipe.network),
        MetricsTable(output / "metrics.csv"),
        SnapshotRecorder(output / "pictures", whole_batches=recipe.network.compile, label=label),
        *([PatchLossRecorder(data)] if recipe.data.hard_patches else []),
        *([ProgressReporter(report)] if report else []),
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
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpoints()
    with explain_failures(recipe, output):
        trainer.fit(framework, datamodule=data, ckpt_path=ckpt, weights_only=True)
