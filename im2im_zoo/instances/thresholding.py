"""Objects of a probability map by a threshold: the settings of a user, and the instance segmentation of these."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PlanError
from im2im_zoo.instances.function import GroupFunction
from im2im_zoo.instances.methods import components

_SIZE = re.compile(r"\s*([0-9.eE+-]+)\s*(?:(px|um|µm|μm)\s*\^?([23²³])?)?\s*")
_POWERS = {"2": 2, "²": 2, "3": 3, "³": 3}
# Voxels are taken as equally long along all axes up to this ratio.
_SAME = 1.01


@dataclass(frozen=True, slots=True)
class Thresholding:
    """Settings of the objects of a probability map: connected components, through faces, of the values above a threshold.

    None is the default, or what the package states if its own method is the same.

    Attributes:
        threshold: voxels with a larger value are objects.
        of_class: channel of the map, by name or index, if it has several.
        split_touching: whether objects that hang together by a narrow neck are split (for round objects, such as nuclei).
        neck: a neck is narrow if it is narrower than this fraction of the narrower of the two parts, from 0 to 1 (default: 0.85).
        fill_holes: whether background that objects enclose becomes part of them.
        min_size: smaller objects are removed: voxels, or a text such as `20um2` or `50um3` (default: 1).

    Example:
        >>> from im2im_zoo.instances.thresholding import Thresholding
        >>> Thresholding(0.5, split_touching=True, min_size=20).is_given
        True
    """

    threshold: float | None = None
    of_class: int | str | None = None
    split_touching: bool | None = None
    neck: float | None = None
    fill_holes: bool | None = None
    min_size: int | str | None = None

    def __post_init__(self) -> None:
        if self.neck is not None and not 0 <= self.neck <= 1:
            raise PlanError(f"neck is {self.neck}; use a number from 0 to 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise PlanError(f"threshold is {self.threshold}; use a number")
        if self.min_size is not None:
            _ = _parse_size(self.min_size)

    @property
    def is_given(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, f.name) is not None for f in fields(self))

    def to_json(self) -> dict[str, Any]:
        """Return what is given as JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def grouping(
        self,
        output: str,
        channels: Sequence[str] | int,
        space: Sequence[str],
        pixel_size_um: Mapping[str, float],
        stated: Mapping[str, Any] | None = None,
    ) -> "ThresholdGrouping":
        """Return the instance segmentation of a map.

        Args:
            output: name of the map.
            channels: names of its channels, or their number.
            space: its axes among z, y, x.
            pixel_size_um: size of its voxels along axes where it is known.
            stated: arguments of the package's own segmentation, for what is not given.

        Raises:
            PlanError: there is no threshold, the channel is not clear, or a size in micrometres of an unknown pixel size.
        """
        kwargs = dict(stated or {})
        if self.threshold is None and "threshold" not in kwargs:
            raise PlanError(
                f"{output} is a map, not a label image: add --threshold, above which its values are objects (0.5 for a probability)"
            )
        if self.of_class is not None or "channel" not in kwargs:
            kwargs["channel"] = _channel(output, channels, self.of_class)
        for name in ("threshold", "split_touching", "neck", "fill_holes"):
            if getattr(self, name) is not None:
                kwargs[name] = getattr(self, name)
        if self.min_size is not None:
            kwargs["min_size"] = _voxels(self.min_size, space, pixel_size_um)
        spacing = relative_spacing(space, pixel_size_um)
        if kwargs.get("split_touching") and spacing is not None:
            kwargs["spacing"] = spacing
        return ThresholdGrouping(output, kwargs)


@dataclass(frozen=True, slots=True)
class ThresholdGrouping:
    """The instance segmentation of `Thresholding`, as that of a package.

    Attributes:
        output: id of the map.
        kwargs: of `instances.methods.components.group`.
    """

    output: str
    kwargs: Mapping[str, Any]

    @property
    def source(self) -> str:
        """The file of the method."""
        return "components.py"

    @property
    def callable(self) -> str:
        """Name of the function."""
        return "group"

    @property
    def scale(self) -> Mapping[str, int]:
        """Voxels of the labels per voxel of the map, by axis where it is not 1: empty."""
        return {}

    @property
    def copies(self) -> tuple[int, int]:
        """Peak memory of a call in copies of its maps and of its labels, measured with foreground only."""
        return 3, 6

    def to_json(self) -> dict[str, Any]:
        """Return the segmentation as JSON values."""
        return {
            "source": self.source,
            "callable": self.callable,
            "output": self.output,
            "kwargs": {k: list(v) if isinstance(v, tuple) else v for k, v in self.kwargs.items()},
        }

    def is_ours(self, root: Path) -> bool:
        """Return True: it runs without consent."""
        return True

    def method(self, root: Path) -> str:
        """Return the name of the method, for its steps in blocks."""
        return "components"

    def load(self, root: Path, *, allow_code: bool) -> GroupFunction:
        """Load the function; the arguments are ignored, for the interface of `Grouping.load`."""
        return GroupFunction("the segmentation by a threshold", components.group, self.kwargs)


def relative_spacing(space: Sequence[str], pixel_size_um: Mapping[str, float]) -> tuple[float, ...] | None:
    """Return the size of a voxel along each axis relative to the smallest; None if it is unknown, or the same along all."""
    sizes = [float(pixel_size_um.get(a, 0)) for a in space]
    if min(sizes) <= 0 or max(sizes) <= _SAME * min(sizes):
        return None
    return tuple(round(size / min(sizes), 6) for size in sizes)


def _channel(output: str, channels: Sequence[str] | int, wanted: int | str | None) -> int:
    names = [str(n) for n in range(channels)] if isinstance(channels, int) else [str(n) for n in channels]
    listed = ", ".join(f"{n} ({name})" if name != str(n) else name for n, name in enumerate(names))
    if wanted is None:
        objects = [n for n, name in enumerate(names) if name.lower() not in ("background", "bg")]
        if len(objects) == 1:
            return objects[0]
        raise PlanError(f"{output} has {len(names)} channels: {listed}; choose one with --class")
    if str(wanted) in names:
        return names.index(str(wanted))
    if str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise PlanError(f"{output} has no channel {wanted!r}: --class is one of {listed}")


def _parse_size(size: int | str) -> tuple[float, int]:
    """Return a number, and its power of micrometres: 0 for voxels."""
    found = _SIZE.fullmatch(str(size))
    try:
        number = float(found[1]) if found else -1.0
    except ValueError:
        number = -1.0
    unit, power = (found[2], found[3]) if found else (None, None)
    in_um = unit not in (None, "px")
    if number < 0 or not math.isfinite(number) or in_um != (power is not None):
        raise PlanError(
            f"min_size is {size!r}: use a number of pixels, or for example 20um2 or 50um3 (--min-size)"
        )
    return number, _POWERS[str(power)] if in_um else 0


def _voxels(size: int | str, space: Sequence[str], pixel_size_um: Mapping[str, float]) -> int:
    """Return a size in voxels, rounded up."""
    number, power = _parse_size(size)
    if not power:
        return math.ceil(number)
    if power != len(space):
        wanted = "20um2" if len(space) == 2 else "50um3"
        raise PlanError(f"min_size is {size}, but the axes are {', '.join(space)}: use for example {wanted}")
    unknown = [a for a in space if not pixel_size_um.get(a)]
    if unknown:
        raise PlanError(
            f"min_size is {size}, but the image states no pixel size along {', '.join(unknown)}; use a number of pixels"
        )
    voxel = math.prod(pixel_size_um[a] for a in space)
    # A size that is a whole number of voxels up to rounding is that number.
    return math.ceil(round(number / voxel, 6))
