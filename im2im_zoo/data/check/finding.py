"""Findings and examined images, which the rules in `image_rules` and `file_rules` use."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import xarray as xr

from im2im_zoo.data.check.voxels import VoxelStatistics
from im2im_zoo.data.pairing.matching import Side

Severity = Literal["error", "warning"]
Part = Literal["train", "validation"]


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One problem (an error: training fails, or its metrics are meaningless) or possible problem (a warning).

    Attributes:
        code: kind of finding, e.g. `leakage`.
        severity: error or warning.
        message: the problem and what to do about it.
        files: all affected images, each with a remark.
        names: the pairs that they belong to.
    """

    code: str
    severity: Severity
    message: str
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ExaminedImage:
    """An image that could be opened, and statistics of its voxels if they were read."""

    name: str
    part: Part
    side: Side
    image: xr.DataArray
    voxels: VoxelStatistics | None = None

    @property
    def source(self) -> str:
        """The image's file."""
        return str(self.image.attrs.get("source"))


def make_finding(
    code: str, severity: Severity, message: str, examined: Iterable[tuple[ExaminedImage, str]]
) -> Iterator[DataFinding]:
    """Yield a finding if there are images, each with a remark."""
    listed = list(examined)
    if listed:
        files = tuple(f"{entry.source}: {remark}" if remark else entry.source for entry, remark in listed)
        yield DataFinding(
            code, severity, message, files, tuple(dict.fromkeys(entry.name for entry, _ in listed))
        )
