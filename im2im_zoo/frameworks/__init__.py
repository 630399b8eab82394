"""Training frameworks: one file a method. `base.Framework` is what they have in common."""
