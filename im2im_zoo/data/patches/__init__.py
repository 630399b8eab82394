"""Patches: where they lie, how large, augmented and batched."""
