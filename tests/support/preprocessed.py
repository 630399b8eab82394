"""Preprocessing of all images at once."""

from pathlib import Path
from typing import Any

from im2im_zoo.data.cache.preprocess import PreparedPairs, Progress, plan_preprocessing
from im2im_zoo.data.pairing.pairs import Pairs
from im2im_zoo.recipe import Recipe


def preprocess(
    pairs: Pairs, recipe: Recipe, folder: Path, progress: Progress | None = None, **options: Any
) -> PreparedPairs:
    """Preprocess all images into a folder, except those that are there; options are those of `plan_preprocessing`."""
    preparation = plan_preprocessing(pairs, recipe, folder, **options)
    preparation.write(range(len(preparation.names)), progress)
    return preparation.prepared
