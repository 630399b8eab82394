"""Grouping: instance segmentation from a network's dense maps, by a Python file of the package.

The RDF has no operation for it, as consumers run operations block by block and expect the shape to be kept. It is stored in

    config.im2im_zoo.grouping: {source: FILE, sha256: ..., callable: group, kwargs: {...}, output: ID}

and runs last, on the whole image at one time point; the RDF's output is the maps (docs/decisions/0012). The methods of
im2im_zoo are in `im2im_zoo.instances.methods`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.nested import our_entry
from im2im_zoo.core.released_files import ReleasedFile, find_released, trusted_callables
from im2im_zoo.instances.function import GroupFunction as GroupFunction
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.instances.thresholding import ThresholdGrouping
from im2im_zoo.processing.custom_code import file_in, load_callable

WHERE = "config.im2im_zoo.grouping"
# Name of the labels, among the outputs and inside an OME-Zarr.
INSTANCES = "instances"
_KEYS = ("source", "sha256", "callable", "output")


@dataclass(frozen=True, slots=True)
class Grouping:
    """The instance segmentation that a package describes.

    Attributes:
        source: the file in the package.
        sha256: of the file.
        callable: name of its function from float32 maps (channel, (z,) y, x) and `kwargs` to labels ((z,) y, x).
        output: id of the output tensor with the maps.
        kwargs: arguments of the function.
    """

    source: str
    sha256: str
    callable: str
    output: str
    kwargs: Mapping[str, Any]

    @property
    def scale(self) -> Mapping[str, int]:
        """Voxels of the labels per voxel of the maps, by axis where it is not 1: empty."""
        return {}

    @property
    def copies(self) -> tuple[int, int]:
        """Peak memory of a call in copies of its maps and of its labels, measured with foreground only."""
        return 3, 6

    def to_json(self) -> dict[str, Any]:
        """Return the grouping as JSON values."""
        return asdict(self)

    def is_ours(self, root: Path) -> bool:
        """Return whether the file is identical to that of a version of im2im_zoo, so that it runs without consent.

        Raises:
            PackageError: the file is not in the package's folder.
        """
        return self._released(root) is not None

    def method(self, root: Path) -> str | None:
        """Return the name of the current method with the same labels, if the file is from any version of im2im_zoo.

        Raises:
            PackageError: the file is not in the package's folder.
        """
        released = self._released(root)
        return None if released is None else released.implementation

    def load(self, root: Path, *, allow_code: bool) -> GroupFunction:
        """Load the function.

        Args:
            root: folder of the package.
            allow_code: consent to run a file that is not from im2im_zoo.

        Raises:
            PackageError: there is no consent, the file is missing or has another SHA-256, it cannot be imported, it lacks
                the function, or the function does not take the kwargs.
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
                f"{self._what} does not take the kwargs of {WHERE}, {dict(self.kwargs)}: {error}; correct them"
            ) from error
        return GroupFunction(self._what, function, self.kwargs)

    def _released(self, root: Path) -> ReleasedFile | None:
        return find_released("instance method", sha256(self._file(root)), self.callable)

    @property
    def _what(self) -> str:
        return f"the grouping {self.callable!r} of {self.source}"

    def _file(self, root: Path) -> Path:
        try:
            return file_in(self._what, self.source, root)
        except ProcessingError as error:
            raise PackageError(str(error)) from error


def read_grouping(config: object, outputs: Mapping[str, Sequence[str]]) -> Grouping | None:
    """Read the grouping of a package's `config`; None if it has none.

    Args:
        config: of the RDF, as JSON values.
        outputs: axes of the output tensors, by id.

    Raises:
        PackageError: the entry is invalid, or its output does not have the axes of maps.
    """
    entry = our_entry(config, "grouping")
    if entry is None:
        return None
    kwargs = entry.get("kwargs") or {} if isinstance(entry, Mapping) else None
    if not isinstance(kwargs, Mapping) or not all(isinstance(entry.get(key), str) for key in _KEYS):
        raise PackageError(f"{WHERE} needs the keys {', '.join(_KEYS)} with texts, and kwargs with a mapping")
    source, sha256, callable_, output = (str(entry[key]) for key in _KEYS)
    if list(outputs) != [output] or output == INSTANCES:
        raise PackageError(
            f"{WHERE}.output is {output!r}: it must name the package's only output, which must not be called {INSTANCES!r}; "
            f"the outputs are {', '.join(outputs)}"
        )
    axes = set(outputs[output])
    if not {"y", "x"} <= axes <= {"batch", "channel", *SPACE}:
        raise PackageError(
            f"{WHERE}: the output {output} has the axes {', '.join(outputs[output])}; maps have batch, channel, (z,) y, x"
        )
    return Grouping(source, sha256, callable_, output, {str(k): v for k, v in kwargs.items()})


# A grouping by a file of the package, by a library that the RDF names, or by a threshold of the user.
AnyGrouping = Grouping | LibraryGrouping | ThresholdGrouping
