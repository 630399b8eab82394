"""Pairing of image files: matching by name, tables, groups and splits, and opening of the images of a pair."""
