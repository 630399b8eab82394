"""What a walk over a whole image has counted so far, so that one that was stopped goes on. What keeps it is the caller's."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

State = Mapping[str, NDArray[Any]]


class Checkpoint(Protocol):
    """Keeps the state of one walk: arrays by name."""

    def load(self) -> State | None:
        """The state that was kept last, in arrays of the caller's own; None: the walk begins."""
        ...

    def save(self, state: Callable[[], State]) -> None:
        """Keep a state, if the last one was kept long enough ago; only then is it made."""
        ...


class NotKept:
    """Keeps nothing."""

    def load(self) -> State | None:
        """Nothing."""
        return None

    def save(self, state: Callable[[], State]) -> None:
        """Nothing is done."""


NOT_KEPT = NotKept()
