"""Training frameworks, one file each; `base.Framework` is their base class."""
