"""Base class of image file formats: suffixes, abilities, and how files are opened and created."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.address import Address
from im2im_zoo.images.lazy import Source
from im2im_zoo.images.metadata import ImageMetadata
from im2im_zoo.images.target import NewImage, Storage, Target

if TYPE_CHECKING:
    import xarray as xr

Kept = Literal["axes", "pixel_size_um", "translation_um", "channel_names", "time_step_s", "attributes"]


class ImageFormat:
    """One file format. A subclass in a module of `im2im_zoo.images.formats` is found there, and needs no other mention.

    All formats are imported to find the one of a file, so a subclass imports heavy libraries only in its methods.

    Attributes:
        name: for messages.
        reads: suffixes of the files that are read, in lower case.
        writes: suffixes of the files that are written.
        keeps: metadata that a written file states.
        is_folder: whether an image is a folder.
        marks: names of files by which such a folder is known; none of them is an image itself.
        holds_labels: whether label images can be put into an image, in its group `labels`.
        several: whether a file can hold several images, chosen by `#n`.
        by_path: whether an image within a file can be chosen by its path there: "a.h5:/raw".
        by_region: whether an image can be written region by region; see `create` and `writer`.
        is_picture: whether it is a format for pictures, whose colours are channels.
        is_lossy: whether writing changes values.
        on_web: whether images are read at an https address.
        reads_any: whether `open` tries files of unknown suffixes.
        extra: the extra of im2im_zoo that reading needs, if any.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[frozenset[Kept]] = frozenset()
    is_folder: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = ()
    holds_labels: ClassVar[bool] = False
    several: ClassVar[bool] = False
    by_path: ClassVar[bool] = False
    by_region: ClassVar[bool] = True
    is_picture: ClassVar[bool] = False
    is_lossy: ClassVar[bool] = False
    on_web: ClassVar[bool] = False
    reads_any: ClassVar[bool] = False
    extra: ClassVar[str] = ""

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open an image without reading its voxels.

        Args:
            path: the file or folder.
            number: which image of the file, counted from 0; None if none is named, and always unless `several`.

        Raises:
            ImageError: the file is damaged, or not an image. Any other exception becomes one that names the file.
        """
        raise ImageError(f"{path}: {self.name} cannot be read; convert it to OME-TIFF or OME-Zarr")

    def open_labels(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open a mask or label image; as `open`, unless a format has colours in place of the numbers of voxels."""
        return self.open(path, number)

    def open_within(self, path: Path, inner: str) -> tuple[Source, ImageMetadata]:
        """Open an image at a path within a file, without a slash in front; only if `by_path`. Errors as of `open`."""
        raise NotImplementedError

    def open_address(self, address: Address) -> tuple[Source, ImageMetadata]:
        """Open an image on the web; only if `on_web`. Errors as of `open`."""
        raise NotImplementedError

    def create(self, path: Path, image: NewImage, storage: Storage) -> Target:
        """Return the writer of a file's voxels; it creates nothing yet.

        Args:
            path: where the file appears, for messages.
            image: what is written.
            storage: how voxels are stored; a format ignores what it does not have.

        Raises:
            ImageError: axes, or a data type, that the format does not have.
        """
        raise ImageError(
            f"{path}: a {self.name} cannot be written region by region; write .ome.zarr, .ome.tif or .tif"
        )

    def writer(self, path: Path, image: "xr.DataArray") -> Callable[[Path], None]:
        """Return a function that writes a whole image to the path it is given; only if not `by_region`.

        Raises:
            ImageError: axes, or a data type, that the format does not have.
        """
        raise NotImplementedError
