"""Image file formats: one module or folder each, with a subclass of `ImageFormat`; see docs/adding-a-format.md."""
