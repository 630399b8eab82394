"""Lightning, as a person who runs a recipe should hear of it: without chatter, and failures as errors that say what to do."""

import logging
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric.utilities.exceptions import MisconfigurationException

from im2im_zoo.core.errors import FULL, InterruptionError, TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.memory import is_out_of_memory, lost_a_worker, what_needs_less
from im2im_zoo.training.speed import of_compiler

# Said by Lightning and torch to developers; nothing that a person who runs a recipe could act on.
_LIGHTNING_CHATTER = (
    r".*does not have many workers.*",
    r".*smaller than the logging interval.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"The \.grad attribute of a Tensor that is not a leaf.*",  # torch.compile, as it looks at a network
)


@contextmanager
def explained_failures(recipe: Recipe, output: Path) -> Iterator[None]:
    """Interruptions, a full disk or memory and a wrong setting as errors that say what to do; others unchanged."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:  # Lightning turns Ctrl-C into an exit
        raise InterruptionError(
            f"training was interrupted; {output} keeps its last whole epoch: go on with --resume"
        ) from error
    except MisconfigurationException as error:
        raise TrainingError(_explain(error, recipe)) from error
    except OSError as error:
        if is_out_of_memory(error):
            raise TrainingError(what_needs_less(recipe)) from error
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f"no space is left for {output}: free some, then go on with --resume from the last whole epoch"
        ) from error
    except (RuntimeError, AssertionError, MemoryError) as error:
        if recipe.network.compile and of_compiler(error):
            raise TrainingError(
                f"network.compile: torch.compile cannot run this network here: {str(error).strip().splitlines()[0]}; set "
                "network.compile to false"
            ) from error
        if lost_a_worker(error):
            raise TrainingError(
                f"a process that prepares batches was ended, as systems do where memory is out: give fewer, as --data.workers=1, and "
                f"go on with --resume from the last whole epoch ({str(error).splitlines()[0]})"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(what_needs_less(recipe)) from error
    finally:
        signal.signal(signal.SIGINT, handler)


def _explain(error: Exception, recipe: Recipe) -> str:
    message = str(error)
    found = re.search(r"could not find the monitored key in the returned metrics: (\[.*?\])", message)
    if found:
        return f"monitor: {recipe.monitor!r} is not among the metrics that training logs: {found.group(1)}"
    return f"trainer: {message}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's chatter, on the log and as warnings."""
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
