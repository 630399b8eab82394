"""Fingerprints of images and packages, so that a resumed run does not mix two of them in one output."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from im2im_zoo.core.hashing import sha256, sha256_of, sha256_of_parts
from im2im_zoo.images import Address, sources_of, web_state

if TYPE_CHECKING:
    from im2im_zoo.package import Package

# Small blocks of voxels at fixed positions of an image in a file; for an image in memory, all voxels are hashed.
_PLACES = 24
_SIDE = 8
# Metadata files of a zarr.
_METADATA = ("zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata")


def image_fingerprint(image: xr.DataArray) -> dict[str, Any]:
    """Return the fingerprint of an image as JSON values: shape, channels, the state of its files, and a few voxels."""
    names = [str(n) for n in image.coords["channel"].values] if "channel" in image.coords else None
    known = {
        "axes": [str(a) for a in image.dims],
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "channels": names,
        "pixel_size_um": dict(image.attrs.get("pixel_size_um", {})),
    }
    if "part" in image.attrs:
        known["part"] = str(image.attrs["part"])
    files = [_state(source) for source in sources_of(image)]
    if not files or any(file is None for file in files):
        voxels = np.ascontiguousarray(image.to_numpy()).tobytes()
        return {**known, "voxels": sha256_of(voxels)}
    of_files = files[0] if len(files) == 1 else {"files": files}
    return {**known, **(of_files or {}), "voxels": sha256_of_parts(_few_voxels(image))}


def _state(source: str) -> dict[str, Any] | None:
    """Return the state of a file, a zarr or an address without reading voxels; None if it does not exist."""
    if source.startswith(("https://", "http://")):
        return {"path": source, "metadata": web_state(Address(source))}
    where = Path(source).resolve()
    if not where.exists():
        return None
    return {"path": str(where), **(_folder(where) if where.is_dir() else _file(where))}


def package_fingerprint(package: "Package") -> dict[str, Any]:
    """Return the fingerprint of a package as JSON values: name, version, and hashes of its description and weights."""
    text = json.dumps(package.raw, sort_keys=True, default=str)
    weights = {f: sha256(package.path(package.weights_entry(f))) for f in package.weights}
    return {
        "name": package.name,
        "version": package.version,
        "description": sha256_of(text),
        "weights": weights,
    }


def _file(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}


def _folder(path: Path) -> dict[str, Any]:
    """Return number, size and latest change of the files in a folder, and a hash of the metadata files."""
    count = size = newest = 0
    metadata = list[Path]()
    left = [path]
    while left:
        folder = left.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.is_dir():
                    # Labels of an image, and predictions that are not finished, may lie in it and change nothing of the image.
                    if folder != path or not (entry.name == "labels" or entry.name.endswith(".incomplete")):
                        left.append(Path(entry.path))
                    continue
                if folder == path and entry.name.endswith(".incomplete.lock"):
                    continue
                found = entry.stat()
                count, size, newest = count + 1, size + found.st_size, max(newest, found.st_mtime_ns)
                if entry.name in _METADATA:
                    metadata.append(Path(entry.path))
    state = sha256_of_parts(file.read_bytes() for file in metadata)
    return {"files": count, "bytes": size, "modified": newest, "metadata": state}


def _few_voxels(image: xr.DataArray) -> Iterator[bytes]:
    """Yield small blocks of voxels at fixed positions."""
    random = np.random.default_rng(0)
    for _ in range(_PLACES):
        starts = {a: int(random.integers(0, n)) for a, n in image.sizes.items()}
        region = {a: slice(s, s + (_SIDE if a in ("y", "x") else 1)) for a, s in starts.items()}
        yield np.ascontiguousarray(image.isel(region).to_numpy()).tobytes()
