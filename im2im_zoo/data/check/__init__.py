"""Checks of training data before training: one pass over all images, and rules that report findings."""
