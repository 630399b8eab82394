"""The images of the current round, made in time: those of the next one while this one trains. Draws no patches."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from im2im_zoo.data.cache.preprocess import Preparation
from im2im_zoo.data.cache.rounds import Rounds


class Stock:
    """Files of the training images that are at hand, exchanged from round to round by a thread of its own.

    Args:
        preparation: of all images; its first entries are those that train.
        rounds: which of them are at hand when.
        use: told of the files that this round and the next one need; others may go.
        remove: whether files are removed once their round is over.
    """

    def __init__(
        self,
        preparation: Preparation,
        rounds: Rounds,
        use: Callable[[frozenset[Path]], None],
        *,
        remove: bool,
    ) -> None:
        self._preparation = preparation
        self._rounds = rounds
        self._use = use
        self._remove = remove
        self._now: int | None = None
        self._held: frozenset[Path] = frozenset()
        self._pool = ThreadPoolExecutor(1, "next round")
        self._next: tuple[int, Future[None]] | None = None

    def enter(self, epoch: int) -> None:
        """Return when the images of an epoch are there; the next round's are then begun.

        Raises:
            DataError, ImageError: as `Preparation.write`, also what went wrong in the background.
        """
        number = self._rounds.round_of(epoch)
        if number == self._now:
            return
        if self._next is not None:
            planned, future = self._next
            future.result()
            if planned != number:
                self._next = None
        needed = self._files(number) | self._files(number + 1)
        self._use(needed)
        if self._next is None:
            self._preparation.write(self._rounds.members(number))
        if self._remove:
            for file in self._held - needed:
                file.unlink(missing_ok=True)
        self._now, self._held = number, needed
        self._next = (
            number + 1,
            self._pool.submit(self._preparation.write, self._rounds.members(number + 1)),
        )

    def end(self) -> None:
        """Stop the thread, once it is done with the image that it is at."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _files(self, number: int) -> frozenset[Path]:
        return frozenset[Path]().union(*(self._preparation.files[n] for n in self._rounds.members(number)))
