"""Recipes: their schema, reading from YAML with overrides, and components named by dotted paths."""

from im2im_zoo.recipe.data import Data
from im2im_zoo.recipe.schema import Input, Network, Output, PackageMetadata, Preprocessing, Recipe, Target

__all__ = ["Data", "Input", "Network", "Output", "PackageMetadata", "Preprocessing", "Recipe", "Target"]
