"""The user's cache of measurements: small JSON files, named by the hash of everything that a measurement depends on."""

from pathlib import Path

import platformdirs


def cache_file(kind: str, key: str, folder: Path | None = None) -> Path:
    """Return the cache file of a measurement.

    Args:
        kind: of measurement; the name of its folder.
        key: hash of everything that the measurement depends on.
        folder: that holds the file (default: a folder of the user's cache).
    """
    return (folder or Path(platformdirs.user_cache_dir("im2im_zoo")) / kind) / f"{key}.json"
