"""Rotation of training images through a cache that holds only a share of them: each round is prepared during the one before."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from im2im_zoo.data.cache.preprocess import PreprocessingPlan

# A stream of random numbers besides those of `patches.placement`.
_ROUND = 7


@dataclass(frozen=True, slots=True)
class ImageRotation:
    """Rounds of a few epochs, each with equally many training images; one pass of rounds has each image at least once.

    Attributes:
        images: number of training images.
        share: of them that a round has, above 0 to 1.
        epochs: of a round.
        seed: the recipe's.
    """

    images: int
    share: float
    epochs: int
    seed: int

    @property
    def size(self) -> int:
        """Number of images of a round."""
        return max(1, min(self.images, round(self.share * self.images)))

    def find_round(self, epoch: int) -> int:
        """Return the round, from 0, of an epoch."""
        return epoch // self.epochs

    def members(self, number: int) -> tuple[int, ...]:
        """Return the images of a round; they depend only on its number and the seed, so a resumed run has the same."""
        if self.size == self.images:
            return tuple(range(self.images))
        a_pass, place = divmod(number, math.ceil(self.images / self.size))
        order = np.random.default_rng((self.seed, _ROUND, a_pass)).permutation(self.images)
        # The last round of a pass is filled up from its first.
        return tuple(
            sorted(map(int, np.take(order, range(place * self.size, (place + 1) * self.size), mode="wrap")))
        )


class RotatingCache:
    """Preprocessed training images of the current round; a thread prepares those of the next one.

    Args:
        plan: of all images; its first entries are those that train.
        rotation: the images of each round.
        use: called with the files that this round and the next one need; others may be removed.
        remove: whether files are removed when their round is over.
    """

    def __init__(
        self,
        plan: PreprocessingPlan,
        rotation: ImageRotation,
        use: Callable[[frozenset[Path]], None],
        *,
        remove: bool,
    ) -> None:
        self._plan = plan
        self._rotation = rotation
        self._use = use
        self._remove = remove
        self._current: int | None = None
        self._held: frozenset[Path] = frozenset()
        self._pool = ThreadPoolExecutor(1, "next round")
        self._next: tuple[int, Future[None]] | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Wait until the images of an epoch are ready, and start to prepare those of the next round.

        Raises:
            DataError, ImageError: as `PreprocessingPlan.write`, also from the thread.
        """
        number = self._rotation.find_round(epoch)
        if number == self._current:
            return
        if self._next is not None:
            planned, future = self._next
            future.result()
            if planned != number:
                self._next = None
        needed = self._list_files(number) | self._list_files(number + 1)
        self._use(needed)
        if self._next is None:
            self._plan.write(self._rotation.members(number))
        if self._remove:
            for file in self._held - needed:
                file.unlink(missing_ok=True)
        self._current, self._held = number, needed
        self._next = (
            number + 1,
            self._pool.submit(self._plan.write, self._rotation.members(number + 1)),
        )

    def close(self) -> None:
        """Stop the thread after the image that it is preparing."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _list_files(self, number: int) -> frozenset[Path]:
        return frozenset[Path]().union(*(self._plan.files[n] for n in self._rotation.members(number)))
