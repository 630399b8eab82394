"""Group one sample block by block: which method, its steps in turn, and the labels in the end. Knows no method itself.

The labels are those of the whole image for the methods in `_EXACT`, for files of any version (`core.released_files`); for any other see
`overlap`. What is left to do after a kill is what is not told of as done; all else is there.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from im2im_zoo.instances.blockwise import components, greedy, overlap, watershed
from im2im_zoo.instances.blockwise.numbers import Numbers
from im2im_zoo.instances.blockwise.sample import Sample
from im2im_zoo.instances.blockwise.steps import Step, StepRunner
from im2im_zoo.instances.label_image import LabelImage

Steps = Callable[[Sample], Iterator[Step]]

# By the `implementation` of `core.released_files`, and how often each block is looked at, about.
_EXACT: dict[str, tuple[Steps, int]] = {
    "components": (components.steps, 2),
    "embedseg": (greedy.steps, 4),
    "watershed": (watershed.steps, 2),
}
_ANY: tuple[Steps, int] = (overlap.steps, 3)
LABELS = "labels"


def is_exact(method: str | None) -> bool:
    """Whether a method, by its name in `core.released_files`, gives the labels of the whole image whatever the blocks."""
    return method in _EXACT


def passes(method: str | None) -> int:
    """How often a method looks at each block, about."""
    return _EXACT.get(method or "", _ANY)[1]


def group_in_blocks(sample: Sample, target: LabelImage, runner: StepRunner) -> tuple[int, list[str]]:
    """Write the labels of a sample.

    Returns:
        How many objects there are, and what a person should know.

    Raises:
        PackageError: what the grouping refuses, or does not do.
        PlanError: more objects than the label image's type has numbers, or more of them than fit the memory.
        ImageError: maps that cannot be read, or labels that cannot be written.
    """
    method = sample.code.grouping.method(sample.code.root)
    if method in _EXACT:
        _try(sample)
    sample.begin()
    with runner.start(sample) as run:
        for step in _EXACT.get(method or "", _ANY)[0](sample):
            run(step)
        objects = Numbers.of(sample).objects
        target.check(objects)
        run(Step(LABELS, range(len(sample.grid)), partial(write_labels, target=target)))
    return objects, [] if method in _EXACT else overlap.warnings(sample)


def write_labels(sample: Sample, number: int, target: LabelImage) -> None:
    """Write the labels of one block."""
    region = sample.grid.region(number)
    labels, ids = sample.local(number)
    if sample.has("joined", number):
        known, roots = sample.load("joined", number)
        of_known = np.searchsorted(ids, known)
        ids[of_known] = roots
    numbers = np.concatenate([[0], Numbers.of(sample)(ids)]).astype(target.dtype)
    target.write(region, numbers[labels])


def _try(sample: Sample) -> None:
    """Have the package's own function say what it does not take, as the number of channels."""
    one = tuple(slice(0, 1) for _ in sample.space)
    sample.code.load()(sample.read(one))
