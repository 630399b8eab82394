"""Engines run the weights of a package, one file each, found by a registry. They know arrays, not packages or images."""

from im2im_zoo.engines.base import PRECISIONS, Engine
from im2im_zoo.engines.registry import (
    available_engines,
    backends,
    engines_of,
    is_runnable,
    library_version,
    open_engine,
    runs_code,
    vet_weights,
    weights_formats,
)

__all__ = [
    "PRECISIONS",
    "Engine",
    "available_engines",
    "backends",
    "engines_of",
    "is_runnable",
    "library_version",
    "open_engine",
    "runs_code",
    "vet_weights",
    "weights_formats",
]
