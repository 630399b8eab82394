"""Preprocessed images: planned, written to a cache folder or made when they are read, and read in regions."""
