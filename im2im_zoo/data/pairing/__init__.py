"""From files to pairs of images: matching, tables, groups and splits."""
