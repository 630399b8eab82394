"""Engines: run the weights of a package, one file a format. They know arrays, not packages or images."""

from im2im_zoo.engines.base import Engine, open_engine

__all__ = ["Engine", "open_engine"]
