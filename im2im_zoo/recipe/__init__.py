"""Recipes: what to learn, from what, with what. The schema, reading it from YAML with overrides, and dotted paths."""

from im2im_zoo.recipe.data import Data
from im2im_zoo.recipe.schema import Input, Network, Output, Package, Preprocessing, Recipe, Target

__all__ = ["Data", "Input", "Network", "Output", "Package", "Preprocessing", "Recipe", "Target"]
