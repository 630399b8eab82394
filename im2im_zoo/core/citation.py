"""Citation of the work behind a framework or a network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Citation:
    """A published work, as a package cites it.

    Attributes:
        text: authors, year and title.
        doi: without an address in front; `10.48550/arXiv.<number>` for an arXiv preprint.
    """

    text: str
    doi: str
