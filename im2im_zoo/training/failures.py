"""Failures of training as errors that name a remedy: interruption, full disk, out of memory, wrong settings; and quiet Lightning."""

import errno
import logging
import pickle
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from im2im_zoo.core.errors import FULL, InterruptionError, TrainingError
from im2im_zoo.engines.state_dict import explain_unpickling
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.speed import is_compiler_error

# Warnings for developers of Lightning and torch, on which a user of a recipe cannot act.
_LIGHTNING_CHATTER = (
    r".*does not have many workers.*",
    r".*smaller than the logging interval.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"The \.grad attribute of a Tensor that is not a leaf.*",  # torch.compile, as it looks at a network
)
# Texts of out-of-memory errors besides torch's own class: of torch on CPUs (Linux, Windows) and Apple's GPUs, of the libraries of
# NVIDIA and Intel, and of C++.
_OUT_OF_MEMORY_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory object",
    "bad_alloc",
)


@contextmanager
def explain_failures(recipe: Recipe, output: Path) -> Iterator[None]:
    """Raise interruptions, a full disk or memory and wrong settings as errors that name a remedy; pass on all others.

    Args:
        recipe: that is trained.
        output: its run folder.

    Raises:
        InterruptionError: Ctrl-C or a signal.
        TrainingError: any other of these failures.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:  # Lightning turns Ctrl-C into an exit
        raise InterruptionError(
            f"training was interrupted; {output} keeps its last complete epoch: resume with --resume"
        ) from error
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"{output / 'checkpoints' / 'last.ckpt'} holds more than weights and is not loaded, as it could run code: "
            f"{explain_unpickling(error)}; train again with another --output"
        ) from error
    except MisconfigurationException as error:
        raise TrainingError(_explain_misconfiguration(error, recipe)) from error
    except OSError as error:
        if is_out_of_memory(error):
            raise TrainingError(suggest_less_memory(recipe)) from error
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f"no space is left for {output}: free some, then resume from the last complete epoch with --resume"
        ) from error
    except (RuntimeError, AssertionError, MemoryError) as error:
        if recipe.network.compile and is_compiler_error(error):
            raise TrainingError(
                f"network.compile: torch.compile cannot run this network here: {str(error).strip().splitlines()[0]}; set "
                "network.compile to false"
            ) from error
        if is_worker_killed(error):
            raise TrainingError(
                "a worker process that prepares batches was killed, probably because memory ran out: use fewer, e.g. "
                f"--data.workers=1, and resume from the last complete epoch with --resume ({str(error).splitlines()[0]})"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(suggest_less_memory(recipe)) from error
    finally:
        signal.signal(signal.SIGINT, handler)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that the memory of the network's device, or of the process, ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_one = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_one or any(part in str(error) for part in _OUT_OF_MEMORY_TEXTS)


def is_worker_killed(error: BaseException) -> bool:
    """Whether an error reports that a worker process was killed, as systems do when memory runs out."""
    text = str(error)
    return ("DataLoader worker" in text and "killed" in text) or "out of shared memory" in text


def suggest_less_memory(recipe: Recipe) -> str:
    """Return a message with the settings that reduce the memory of a training, the least intrusive first."""
    patch, batch, steps = (
        recipe.data.patch,
        recipe.data.batch,
        recipe.trainer.get("accumulate_grad_batches", 1),
    )
    tries = []
    if batch > 1:
        half = batch // 2
        more = f" --trainer.accumulate_grad_batches={steps * 2}" if isinstance(steps, int) else ""
        tries.append(f"--data.batch_size={half}{more} (as many patches a step as now)")
    if "precision" not in recipe.trainer:
        tries.append("--trainer.precision=bf16-mixed (about half the memory)")
    smaller = [max(size // 2, 1) for size in patch]
    tries.append(f"--data.patch_size={smaller}".replace(" ", "") + " (less context)")
    return (
        f"out of memory with data.batch_size={batch} and data.patch_size={list(patch)}: try "
        + ", or ".join(tries)
    )


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Suppress Lightning's log and its warnings for developers."""
    loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for pattern in _LIGHTNING_CHATTER:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _explain_misconfiguration(error: Exception, recipe: Recipe) -> str:
    message = str(error)
    found = re.search(r"could not find the monitored key in the returned metrics: (\[.*?\])", message)
    if found:
        return f"monitor: {recipe.monitor!r} is not among the metrics that training logs; choose one of {found.group(1)}"
    return f"trainer: {message}"
