"""A finding, and an image that was looked at: what the rules of `findings` and `file_findings` are of. Judges nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import xarray as xr

from im2im_zoo.data.check.voxels import Voxels
from im2im_zoo.data.pairing.matching import Side

Severity = Literal["error", "warning"]
Part = Literal["train", "validation"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (an error: training fails, or its figures mean nothing) or that may be (a warning).

    Attributes:
        code: of the kind of finding, e.g. `leakage`.
        message: what it is and what to do about it.
        files: the images, each in a few words; all of them.
        names: the pairs that they belong to.
    """

    code: str
    severity: Severity
    message: str
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """An image of the set that could be opened, and its voxels if they were looked at."""

    name: str
    part: Part
    side: Side
    image: xr.DataArray
    voxels: Voxels | None = None

    @property
    def source(self) -> str:
        """Its file."""
        return str(self.image.attrs.get("source"))


def finding_of(
    code: str, severity: Severity, message: str, looks: Iterable[tuple[Look, str]]
) -> Iterator[Finding]:
    """A finding if there are images that it is of, each with a remark."""
    listed = list(looks)
    if listed:
        files = tuple(f"{look.source}: {remark}" if remark else look.source for look, remark in listed)
        yield Finding(code, severity, message, files, tuple(dict.fromkeys(look.name for look, _ in listed)))
