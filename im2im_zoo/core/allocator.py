"""Control of the C memory allocator, so that freed arrays return to the system and a plan's memory bound holds.

Only glibc on Linux is controlled; elsewhere all functions do nothing.
"""

import ctypes
import os
import sys
import time

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Larger than a file's chunks, which come and go by thousands; smaller than tiles and a network's activations.
_LARGE_BLOCK = 8 * 1024**2
_KEPT_BYTES = 16 * 1024**2
# A trim takes some milliseconds: at most a hundredth of the time.
_SECONDS_BETWEEN = 1.0


def trim_memory() -> None:
    """Return freed memory to the system."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def set_up_memory() -> None:
    """Return large arrays to the system when they are freed, and request them in huge pages.

    By default glibc keeps freed blocks of up to 32 MiB, and tiles between them leave gaps: a run measured at 660 MiB takes
    365 MiB with these settings. They hold for the whole process, from the first prediction on. Smaller blocks, up to a few
    MiB in total, are kept: returning them too doubled the time to read an image's chunks. All threads share one arena: with
    one arena per thread, the default, the kept blocks added up to 90 MiB over some hundred tiles.

    The system clears returned memory page by page before it is used again, which took half of torch's time. Huge pages
    are few: 1.7 times faster, in the same memory. (torch reads the variable when it first allocates.)
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_ARENA_MAX, 1)


class PeriodicTrim:
    """Trim of freed memory at most once a second, however often it is called.

    glibc keeps free memory between blocks in use; over hundreds of tiles this was measured to grow to 60 MiB.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def trim(self) -> None:
        """Return freed memory to the system, unless the last trim was less than a second ago."""
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN:
            trim_memory()
            self._last = now
