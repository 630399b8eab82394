"""Recipes: their schema, reading from YAML with overrides, and components named by dotted paths."""

from im2im_zoo.recipe.data import Data
from im2im_zoo.recipe.schema import Network, Recipe

__all__ = ["Data", "Network", "Recipe"]
