"""What identifies an image and a package, so that two of them are never mixed in one output. Reads a few voxels, not all."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from im2im_zoo.core.hashing import sha256
from im2im_zoo.images import Address, sources_of, web_state

if TYPE_CHECKING:
    from im2im_zoo.package import Package

# Small blocks of voxels at fixed places of an image that is in a file; of one in memory, all voxels are looked at.
_PLACES = 24
_SIDE = 8
# What a zarr keeps its metadata in, and a bioimage.io package its description.
_METADATA = ("zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata")


def image_fingerprint(image: xr.DataArray) -> dict[str, Any]:
    """What an image is, as JSON values: its shape, names and file, when and how large that was written, and some voxels."""
    names = [str(n) for n in image.coords["channel"].values] if "channel" in image.coords else None
    known = {
        "axes": [str(a) for a in image.dims],
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "channels": names,
        "pixel_size_um": dict(image.attrs.get("pixel_size_um", {})),
    }
    files = [_state(source) for source in sources_of(image)]
    if not files or any(file is None for file in files):
        voxels = np.ascontiguousarray(image.to_numpy()).tobytes()
        return {**known, "voxels": hashlib.sha256(voxels).hexdigest()}
    of_files = files[0] if len(files) == 1 else {"files": files}
    return {**known, **(of_files or {}), "voxels": _some(image)}


def _state(source: str) -> dict[str, Any] | None:
    """What is known of a file, a zarr or an address without its voxels; None if there is none."""
    if source.startswith(("https://", "http://")):
        return {"path": source, "metadata": web_state(Address(source))}
    where = Path(source).resolve()
    if not where.exists():
        return None
    return {"path": str(where), **(_folder(where) if where.is_dir() else _file(where))}


def package_fingerprint(package: "Package") -> dict[str, Any]:
    """What a package is: its name and version, and its description as a hash, in which the weights' own hashes are."""
    text = json.dumps(package.raw, sort_keys=True, default=str)
    weights = {f: sha256(package.path(package.weights_entry(f))) for f in package.weights}
    return {
        "name": package.name,
        "version": package.version,
        "description": hashlib.sha256(text.encode()).hexdigest(),
        "weights": weights,
    }


def _file(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}


def _folder(path: Path) -> dict[str, Any]:
    """How many files, how large and how new; and the metadata, which is small."""
    count = size = newest = 0
    digest = hashlib.sha256()
    left = [path]
    while left:
        folder = left.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.is_dir():
                    left.append(Path(entry.path))
                    continue
                found = entry.stat()
                count, size, newest = count + 1, size + found.st_size, max(newest, found.st_mtime_ns)
                if entry.name in _METADATA:
                    digest.update(Path(entry.path).read_bytes())
    return {"files": count, "bytes": size, "modified": newest, "metadata": digest.hexdigest()}


def _some(image: xr.DataArray) -> str:
    digest, random = hashlib.sha256(), np.random.default_rng(0)
    for _ in range(_PLACES):
        starts = {a: int(random.integers(0, n)) for a, n in image.sizes.items()}
        region = {a: slice(s, s + (_SIDE if a in ("y", "x") else 1)) for a, s in starts.items()}
        digest.update(np.ascontiguousarray(image.isel(region).to_numpy()).tobytes())
    return digest.hexdigest()
