"""Packages with grouping: a small network whose output is maps, and files that group them, rightly or not."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from operations_for_tests import NORMALISE_2D, NORMALISE_3D
from packages_for_tests import build_package, small_unet
from scipy import ndimage

import im2im_zoo.instances.methods.components as components
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime import predict_array
from im2im_zoo.runtime.plan.memory import Cost

MakeGrouped = Callable[..., Package]
# What a process takes is left out with it, so that the memory can be so little that there are blocks.
TINY, LITTLE = Cost(0, 0, 10.0), 358 * 1024**2
COMPONENTS = inspect.getsource(components)
# Labels that only a whole image gives: each column is an object, from the left.
COLUMNS = """
import numpy as np

def group(maps, gain=1):
    return np.broadcast_to(gain * np.arange(1, maps.shape[-1] + 1, dtype=np.int32), maps.shape[1:])
"""
ENTRY = {"callable": "group", "output": "out", "kwargs": {"channel": 1, "threshold": -0.58, "min_size": 3}}


def maps_package(folder: Path, ndim: int = 2, pixel_size_um: float | None = None) -> Path:
    """A package whose output is two maps, without grouping yet."""
    space = ("z", "y", "x")[-ndim:]
    path = build_package(
        folder,
        small_unet(ndim=ndim, levels=1, out_channels=2, width=3),
        axes=("batch", "channel", *space),
        out_channels=("edge", "inside"),
        minimum=18,
        step=2,
        halo=8,
        preprocessing=[NORMALISE_3D if ndim == 3 else NORMALISE_2D],
    )
    if pixel_size_um is not None:
        rdf = yaml.safe_load((path / "rdf.yaml").read_text())
        for axis in [a for tensor in (*rdf["inputs"], *rdf["outputs"]) for a in tensor["axes"]]:
            if axis["type"] == "space":
                axis |= {"unit": "micrometer", "scale": pixel_size_um}
        (path / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return path


def with_grouping(path: Path, code: str = COMPONENTS, name: str = "components.py", **entry: Any) -> Package:
    """The package at a path, with a grouping: its file, and what the RDF says of it."""
    (path / name).write_text(code)
    rdf = yaml.safe_load((path / "rdf.yaml").read_text())
    digest = hashlib.sha256(code.encode()).hexdigest()
    rdf["config"] = {"im2im_zoo": {"grouping": {"source": name, "sha256": digest, **ENTRY, **entry}}}
    rdf["attachments"] = [{"source": name, "sha256": digest}]
    (path / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return open_package(path)


def expected_labels(package: Package, image: xr.DataArray) -> np.ndarray:
    """Those of the package with the grouping of `ENTRY`, by its maps and scipy."""
    maps = predict_array(package, image, group=False, whole=True)
    found, count = ndimage.label(maps.sel(channel="inside").to_numpy() > -0.58)
    kept = ndimage.sum_labels(found > 0, found, np.arange(count + 1)) >= 3
    return np.where(kept, np.cumsum(kept), 0)[found]
