"""Image pairs for training: found, checked, preprocessed once, and served as patches.

Importing this room loads neither torch, Lightning nor MONAI.
"""

from im2im_zoo.data.pairing.image_pair import ImagePair, open_validation_pairs
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import hash_pairs

__all__ = ["ImagePair", "find_pairs", "hash_pairs", "open_validation_pairs"]
