"""Checks of training data before training."""
