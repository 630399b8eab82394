"""Segment one sample in blocks: run the steps of its method, then write the labels.

The labels are those of the whole image for the methods in `_EXACT`, in files of any version (`core.released_files`); for
other methods see `overlap`. After an interruption, only blocks that are not recorded as done run again.
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

# Steps by `implementation` of `core.released_files`, and the approximate number of passes over each block.
_EXACT: dict[str, tuple[Steps, int]] = {
    "components": (components.steps, 2),
    "embedseg": (greedy.steps, 4),
    "watershed": (watershed.steps, 2),
}
_ANY: tuple[Steps, int] = (overlap.steps, 3)
LABELS = "labels"


def is_exact(method: str | None) -> bool:
    """Return whether a method, by its name in `core.released_files`, gives the labels of the whole image for any blocks."""
    return method in _EXACT


def passes(method: str | None) -> int:
    """Return the approximate number of passes of a method over each block."""
    return _EXACT.get(method or "", _ANY)[1]


def group_in_blocks(sample: Sample, target: LabelImage, runner: StepRunner) -> tuple[int, list[str]]:
    """Segment a sample in blocks and write its labels.

    Args:
        sample: to segment.
        target: the label image.
        runner: runs the steps.

    Returns:
        The number of objects, and warnings for the user.

    Raises:
        PackageError: the function fails.
        PlanError: there are more objects than the label image's type or the memory can hold.
        ImageError: the maps cannot be read, or the labels cannot be written.
    """
    method = sample.code.grouping.method(sample.code.root)
    if method in _EXACT:
        _check_function(sample)
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


def _check_function(sample: Sample) -> None:
    """Call the package's function on one voxel, so that it reports invalid maps, such as a wrong number of channels."""
    one = tuple(slice(0, 1) for _ in sample.space)
    sample.code.load()(sample.read(one))
