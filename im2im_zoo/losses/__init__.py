"""Losses of (prediction, target), one file each; those of torch and MONAI are named in a recipe by their own paths."""
