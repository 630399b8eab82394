"""Grouping block by block: the labels of maps that are larger than the memory. The argument why is in docs/instances.md."""

from im2im_zoo.instances.blockwise.run import group_in_blocks

__all__ = ["group_in_blocks"]
