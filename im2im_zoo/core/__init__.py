"""Shared foundations: errors, axes, sizes, hashes, downloads, and readers that are safe on hostile files."""
