"""Movies as images: each time point of the files of a pair as a pair of its own. Reads no voxel."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.images import open_image
from im2im_zoo.recipe import Data


def time_points(pairs: Iterable[Pair], data: Data) -> tuple[Pair, ...]:
    """The pairs, each as many times as its input has time points if `data.time_points` says so: `a_t0003` is of `a`.

    Raises:
        DataError: a movie whose target is of another length.
        ImageError, AxesError: a file that cannot be opened.
    """
    return tuple(part for pair in pairs for part in (_parts(pair, data) if data.time_points else (pair,)))


def _parts(pair: Pair, data: Data) -> Iterator[Pair]:
    count = open_image(pair.input, axes=data.input_axes).sizes.get("time")
    others = dict.fromkeys(pair.more, data.input_axes) | {pair.target: data.target_axes}
    others |= {} if pair.cost is None else {pair.cost: data.cost_axes}
    for path, axes in others.items():
        length = count if path == pair.input else open_image(path, axes=axes).sizes.get("time")
        if length is not None and length != count:
            raise DataError(
                f"data.time_points: {pair.input} has {count or 1} time points and {path} has {length}; a file without a time axis "
                "goes with all of them, others need as many"
            )
    if count is None:
        yield pair
    for time in range(count or 0):
        yield replace(pair, name=f"{pair.name}_t{time:04}", time=time)
