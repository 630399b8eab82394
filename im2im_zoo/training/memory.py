"""What is said of a training that ran out of memory: whether it did, and what would make it fit."""

import errno

import torch

from im2im_zoo.recipe import Recipe

# Said where memory cannot be had, beside torch's own class of error: by torch on processors (Linux, Windows) and Apple's GPUs, by
# the libraries of NVIDIA and Intel, and by C++.
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory object",
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the network's device, or of the process, is out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_one = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_one or any(part in str(error) for part in _SAID)


def lost_a_worker(error: BaseException) -> bool:
    """Whether an error says that a process that prepares batches was ended, as systems do where memory is out."""
    said = str(error)
    return ("DataLoader worker" in said and "killed" in said) or "out of shared memory" in said


def what_needs_less(recipe: Recipe) -> str:
    """What makes a training that ran out of memory fit, what changes least first."""
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
