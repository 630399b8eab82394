"""Image pairs for training: found, checked, preprocessed once, and served as patches.

Importing this room loads neither torch, Lightning nor MONAI, until `ImagePairs` is first used.
"""

from typing import TYPE_CHECKING, Any

from im2im_zoo.data.pairing.image_pair import ImagePair, open_image_pair, open_validation_pairs
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pair, Pairs, hash_pairs

if TYPE_CHECKING:
    from im2im_zoo.data.datamodule import ImagePairs

__all__ = [
    "ImagePair",
    "ImagePairs",
    "Pair",
    "Pairs",
    "find_pairs",
    "hash_pairs",
    "open_image_pair",
    "open_validation_pairs",
]


def __getattr__(name: str) -> Any:
    if name == "ImagePairs":
        from im2im_zoo.data.datamodule import ImagePairs

        return ImagePairs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
