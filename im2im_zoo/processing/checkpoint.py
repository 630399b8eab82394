"""Checkpoints of a pass over a whole image, so that it can be resumed. The caller decides where they are stored."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

State = Mapping[str, NDArray[Any]]


class Checkpoint(Protocol):
    """Stores the state of one pass: arrays by name."""

    def load(self) -> State | None:
        """Return the last state, in arrays that the caller may change; None at the start."""

    def save(self, state: Callable[[], State]) -> None:
        """Store a state if the last one is old enough; `state` is called only then."""


class NotKept:
    """Stores nothing."""

    def load(self) -> State | None:
        """Return None."""
        return None

    def save(self, state: Callable[[], State]) -> None:
        """Do nothing."""


NOT_KEPT = NotKept()
