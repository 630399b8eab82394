"""Losses of (prediction, target), one file each; a recipe names those of torch and MONAI by their own paths."""
