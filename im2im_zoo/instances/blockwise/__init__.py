"""Instance segmentation in blocks, for maps larger than the memory; see docs/instances.md for the proofs."""

from im2im_zoo.instances.blockwise.run import group_in_blocks

__all__ = ["group_in_blocks"]
