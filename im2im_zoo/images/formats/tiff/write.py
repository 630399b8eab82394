"""Writing TIFF: the header, and the metadata of each of three conventions.

`.ome.tif` becomes OME-TIFF. `.tif` becomes an ImageJ hyperstack if ImageJ has the data type, else OME-XML is put
into it if OME has the type, else it is a plain TIFF with a JSON description (tifffile's own).
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from im2im_zoo.core.axes import AxisName, axes_letters
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.flat_file import FlatFile
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.target import NewImage, check_same

Flavour = Literal["imagej", "ome", "json"]

_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_OME_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_ORDER: tuple[AxisName, ...] = ("time", "channel", "z", "y", "x")
_IMAGEJ_ORDER: tuple[AxisName, ...] = ("time", "z", "channel", "y", "x")
# Offsets of a classic TIFF have 32 bits; 32 MiB are left for the directories of the pages.
_CLASSIC_LIMIT = 2**32 - 2**25


def tiff_flavour(path: Path, image: NewImage) -> Flavour:
    """Return which of the three conventions can state all the metadata of the image, the most widely read first.

    Raises:
        ImageError: the suffix is that of OME-TIFF, which has no such data type.
    """
    dtype = _stored(image.dtype).name
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        if dtype not in _OME_DTYPES:
            raise ImageError(f"{path}: OME-TIFF has no {dtype}; write .ome.zarr or .tif, or convert it first")
        return "ome"
    # ImageJ has one unit for all sizes, and its x and y sizes are never unknown once there is a unit.
    sizes_fit = {"y", "x"} <= set(image.pixel_size_um) or not image.pixel_size_um
    # tifffile takes a last axis of length 1 of an ImageJ file for the samples of RGB.
    if dtype in _IMAGEJ_DTYPES and image.nbytes < _CLASSIC_LIMIT and sizes_fit and image.size("x") > 1:
        return "imagej"
    return "ome" if dtype in _OME_DTYPES else "json"


class TiffForm:
    """Layout of a new TIFF, in planes of y, x; a bool is stored as uint8, 0 and 1."""

    def __init__(self, path: Path, image: NewImage) -> None:
        if not {"y", "x"} <= set(image.axes) or "index" in image.axes:
            raise ImageError(
                f"{path}: a TIFF has planes of y, x and the axes time, channel, z; the image has "
                f"{', '.join(image.axes)}: write .npy"
            )
        self._image = image
        self._flavour = tiff_flavour(path, image)
        self._dtype = _stored(image.dtype)
        self.axes = image.in_order(_IMAGEJ_ORDER if self._flavour == "imagej" else _ORDER)
        self._shape = tuple(image.size(axis) for axis in self.axes)

    def create(self, partial: Path) -> None:
        """Create the file, its voxels zero."""
        tifffile.imwrite(
            partial,
            data=None,
            shape=self._shape,
            dtype=self._dtype,
            photometric="minisblack",
            bigtiff=self._image.nbytes >= _CLASSIC_LIMIT,
            imagej=self._flavour == "imagej",
            ome=self._flavour == "ome",
            **_tiff_metadata(self._flavour, self._image, self.axes),
        )

    def voxels(self, partial: Path) -> FlatFile:
        """Return where the voxels of a created file are.

        Raises:
            ImageError: the file is damaged, or of another image.
        """
        try:
            with tifffile.TiffFile(partial) as tif:
                series = tif.series[0]
                offset, found = series.dataoffset, _described(series.axes, series.shape, series.dtype)
        except (tifffile.TiffFileError, IndexError) as error:
            raise ImageError(f"{partial}: is damaged ({error}); remove it to start over") from error
        check_same(partial, found, _described(axes_letters(self.axes).upper(), self._shape, self._dtype))
        if offset is None:
            raise ImageError(f"{partial}: tifffile did not lay out the voxels in one piece; write .ome.zarr")
        return FlatFile(partial, offset, self._shape, self._dtype)


def _described(letters: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return axes, sizes and type, without the axes of length 1, which tifffile leaves out."""
    longer = [(a, n) for a, n in zip(letters, shape, strict=True) if n != 1]
    return {"axes": "".join(a for a, _ in longer), "shape": tuple(n for _, n in longer), "dtype": dtype.name}


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype("uint8") if dtype.kind == "b" else dtype


def _tiff_metadata(flavour: Flavour, image: NewImage, axes: tuple[AxisName, ...]) -> dict[str, Any]:
    """Return the arguments of `tifffile.imwrite` for axes, sizes, names and provenance."""
    letters = axes_letters(axes).upper()
    provenance = json.dumps({ATTRIBUTES_KEY: dict(image.attributes)}) if image.attributes else None
    sizes = image.pixel_size_um
    resolution: dict[str, Any] = {}
    if {"y", "x"} <= set(sizes):
        per_unit = 1.0 if flavour == "imagej" else 1e4
        resolution = {"resolution": (per_unit / sizes["x"], per_unit / sizes["y"])}
        resolution["resolutionunit"] = "NONE" if flavour == "imagej" else "CENTIMETER"
    if flavour == "imagej":
        return {**resolution, "metadata": _imagej_metadata(image, axes, letters, provenance)}
    if flavour == "ome":
        return {**resolution, "metadata": _ome_metadata(image, letters, provenance)}
    own = {
        "pixel_size_um": dict(sizes),
        "channel_names": image.channel_names,
        "time_step_s": image.time_step_s,
        "attributes": dict(image.attributes),
    }
    return {**resolution, "metadata": {"axes": letters, ATTRIBUTES_KEY: own}}


def _imagej_metadata(
    image: NewImage, axes: tuple[AxisName, ...], letters: str, provenance: str | None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": letters, "Info": provenance}
    if image.pixel_size_um:
        metadata |= {"unit": "um", "spacing": image.pixel_size_um.get("z")}
    if image.time_step_s is not None:
        metadata |= {"finterval": image.time_step_s, "tunit": "s"}
    if image.channel_names:
        # ImageJ names planes, not channels; channel is the last axis before y and x.
        planes = int(np.prod([image.size(a) for a in axes if a in ("time", "z")], dtype=object))
        metadata |= {"Labels": list(image.channel_names) * planes, "mode": "composite"}
    return {key: value for key, value in metadata.items() if value is not None}


def _ome_metadata(image: NewImage, letters: str, provenance: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": letters, "Name": image.name, "Description": provenance}
    for axis, size in image.pixel_size_um.items():
        metadata |= {f"PhysicalSize{axis.upper()}": size, f"PhysicalSize{axis.upper()}Unit": "µm"}
    if image.time_step_s is not None:
        metadata |= {"TimeIncrement": image.time_step_s, "TimeIncrementUnit": "s"}
    if image.channel_names:
        metadata["Channel"] = {"Name": list(image.channel_names)}
    return {key: value for key, value in metadata.items() if value is not None}
