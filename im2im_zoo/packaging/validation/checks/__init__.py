"""The checks of a package, one file each."""
