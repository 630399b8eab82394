"""Paths that files name within their own folder: whether one leads out of it. Opens no file."""

from pathlib import Path, PurePosixPath, PureWindowsPath


def leads_out(text: str) -> bool:
    """Return whether a text is no path within a folder: it is absolute, an address, or has `..`, on any system.

    Example:
        >>> [leads_out(text) for text in ("scale0/image", "../other", "/tmp", "C:/x", "s3://bucket")]
        [False, True, True, True, True]
    """
    windows = PureWindowsPath(text)
    absolute = PurePosixPath(text).is_absolute() or bool(windows.drive or windows.root)
    return absolute or ".." in windows.parts or "://" in text or "::" in text or "\0" in text


def is_within(path: Path, folder: Path) -> bool:
    """Return whether a path lies in a folder, or is it, after all symbolic links are followed."""
    return path.resolve().is_relative_to(folder.resolve())
