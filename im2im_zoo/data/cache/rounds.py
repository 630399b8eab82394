"""Which of many training images are at hand in an epoch, where only a share of them is at a time. Numbers alone."""

import math
from dataclasses import dataclass

import numpy as np

# Beside the streams of random numbers of `patches`.
_ROUND = 7


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds of a few epochs, each with as many of the images; over a pass of rounds each image is there at least once.

    Attributes:
        images: how many there are.
        share: of them that are at hand at a time, above 0 to 1.
        epochs: of a round.
        seed: the recipe's.
    """

    images: int
    share: float
    epochs: int
    seed: int

    @property
    def size(self) -> int:
        """How many images a round has."""
        return max(1, min(self.images, round(self.share * self.images)))

    def round_of(self, epoch: int) -> int:
        """The round, from 0, that an epoch is in."""
        return epoch // self.epochs

    def members(self, number: int) -> tuple[int, ...]:
        """The images of a round: a function of its number and the seed alone, so that a resumed run has the same."""
        if self.size == self.images:
            return tuple(range(self.images))
        a_pass, place = divmod(number, math.ceil(self.images / self.size))
        order = np.random.default_rng((self.seed, _ROUND, a_pass)).permutation(self.images)
        # The last round of a pass is filled up from its first.
        return tuple(
            sorted(map(int, np.take(order, range(place * self.size, (place + 1) * self.size), mode="wrap")))
        )
