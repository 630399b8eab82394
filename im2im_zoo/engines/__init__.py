"""Engines: run the weights of a package, one file a format. They know arrays, not packages or images."""

from im2im_zoo.engines.base import BACKENDS, PRECISIONS, Engine, backends, library_version, open_engine

__all__ = ["BACKENDS", "PRECISIONS", "Engine", "backends", "library_version", "open_engine"]
