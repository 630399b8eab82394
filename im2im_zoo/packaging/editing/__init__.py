"""Editing of the metadata of a package, without training or exporting it again."""
