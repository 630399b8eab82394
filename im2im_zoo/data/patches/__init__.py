"""Patches for training: their size, sampling, augmentation and data sets."""
