"""Text of sizes in bytes."""


def bytes_text(count: float) -> str:
    """Return a number of bytes as text, for example `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
