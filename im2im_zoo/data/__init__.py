"""Image pairs for training: found, checked, preprocessed once, and served as patches.

Importing this loads neither torch, Lightning nor MONAI; `ImagePairs` does when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pair, Pairs, hash_pairs
from im2im_zoo.data.pairing.samples import Sample, open_sample, validation_samples

if TYPE_CHECKING:
    from im2im_zoo.data.datamodule import ImagePairs

__all__ = [
    "ImagePairs",
    "Pair",
    "Pairs",
    "Sample",
    "find_pairs",
    "hash_pairs",
    "open_sample",
    "validation_samples",
]


def __getattr__(name: str) -> Any:
    if name == "ImagePairs":
        from im2im_zoo.data.datamodule import ImagePairs

        return ImagePairs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
