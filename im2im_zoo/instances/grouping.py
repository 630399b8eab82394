"""Grouping: a network's dense maps become instance labels, by one file of the package. The methods are in `im2im_zoo.instances.methods`.

The format has no place for it, as a consumer runs operations block by block and expects the shape kept. So it is in

    config.im2im_zoo.grouping: {source: FILE, sha256: ..., callable: group, kwargs: {...}, output: ID}

and is done last, on the whole of an image at one time point; the RDF's output is the maps (docs/decisions/0012).
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.released_files import ReleasedFile, find_released, trusted_callables
from im2im_zoo.instances.function import GroupFunction as GroupFunction
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.processing.custom_code import file_in, load_callable

WHERE = "config.im2im_zoo.grouping"
# What the labels are called, beside the outputs and within an OME-Zarr.
INSTANCES = "instances"
_KEYS = ("source", "sha256", "callable", "output")


@dataclass(frozen=True, slots=True)
class Grouping:
    """What makes the labels, as a package describes it.

    Attributes:
        source: the file, within the package.
        sha256: of it.
        callable: the function that it defines: of float32 maps (channel, (z,) y, x) and `kwargs` to labels ((z,) y, x).
        output: the id of the output tensor, which is the maps.
    """

    source: str
    sha256: str
    callable: str
    output: str
    kwargs: Mapping[str, Any]

    @property
    def scale(self) -> Mapping[str, int]:
        """Labels have the voxels of the maps."""
        return {}

    @property
    def copies(self) -> tuple[int, int]:
        """What a call takes at most, in copies of its maps and labels: the maps, and what our methods make of them if all is
        foreground (measured); the labels as they are found, given and written."""
        return 3, 6

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def is_ours(self, root: Path) -> bool:
        """Whether the file is byte for byte that of a version of im2im_zoo, so that it runs without consent.

        Raises:
            PackageError: there is no such file in the package's folder.
        """
        return self._released(root) is not None

    def method(self, root: Path) -> str | None:
        """The name of today's method that gives the same labels as the file, if it is one of ours, of any version.

        Raises:
            PackageError: there is no such file in the package's folder.
        """
        released = self._released(root)
        return None if released is None else released.implementation

    def load(self, root: Path, *, allow_code: bool) -> GroupFunction:
        """The function, ready to be called.

        Args:
            root: folder of the package.
            allow_code: consent to a file that is not ours.

        Raises:
            PackageError: no consent, no such file, another sha256, a file that cannot be imported, no such function in
                it, or one that does not take the kwargs.
        """
        path = self._file(root)
        try:
            function = load_callable(
                self._what,
                path,
                self.callable,
                sha256=self.sha256,
                ours=trusted_callables("instance method"),
                allow_code=allow_code,
            )
        except ProcessingError as error:
            raise PackageError(str(error)) from error
        try:
            inspect.signature(function).bind(None, **self.kwargs)
        except TypeError as error:
            raise PackageError(
                f"{self._what} does not take the kwargs of {WHERE}, {dict(self.kwargs)}: {error}"
            ) from error
        return GroupFunction(self._what, function, self.kwargs)

    def _released(self, root: Path) -> ReleasedFile | None:
        digest = hashlib.sha256(self._file(root).read_bytes()).hexdigest()
        return find_released("instance method", digest, self.callable)

    @property
    def _what(self) -> str:
        return f"the grouping {self.callable!r} of {self.source}"

    def _file(self, root: Path) -> Path:
        try:
            return file_in(self._what, self.source, root)
        except ProcessingError as error:
            raise PackageError(str(error)) from error


def read_grouping(config: object, outputs: Mapping[str, Sequence[str]]) -> Grouping | None:
    """The grouping of a package's `config`, or None if it has none.

    Args:
        config: of the RDF, plain.
        outputs: the axes of the output tensors, by id.

    Raises:
        PackageError: it is not described as above, or its output is no maps.
    """
    ours = config.get("im2im_zoo") if isinstance(config, Mapping) else None
    entry = ours.get("grouping") if isinstance(ours, Mapping) else None
    if entry is None:
        return None
    kwargs = entry.get("kwargs") or {} if isinstance(entry, Mapping) else None
    if not isinstance(kwargs, Mapping) or not all(isinstance(entry.get(key), str) for key in _KEYS):
        raise PackageError(f"{WHERE} needs the keys {', '.join(_KEYS)}, each a text, and kwargs, a mapping")
    source, sha256, callable_, output = (str(entry[key]) for key in _KEYS)
    if list(outputs) != [output] or output == INSTANCES:
        raise PackageError(
            f"{WHERE}.output is {output!r}: it must name the package's only output, which may not be called {INSTANCES!r}; "
            f"the outputs are {', '.join(outputs)}"
        )
    axes = set(outputs[output])
    if not {"y", "x"} <= axes <= {"batch", "channel", *SPACE}:
        raise PackageError(
            f"{WHERE}: the output {output} has the axes {', '.join(outputs[output])}; maps have batch, channel, (z,) y, x"
        )
    return Grouping(source, sha256, callable_, output, {str(k): v for k, v in kwargs.items()})


# By a file of the package, or by a library that the format names.
AnyGrouping = Grouping | LibraryGrouping
