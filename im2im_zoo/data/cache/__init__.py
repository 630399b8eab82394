"""Preprocessed images, kept on disk or at hand."""
