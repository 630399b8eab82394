"""How the process's memory is taken of the system and given back; a plan's promise rests on it.

Measures nothing (see `cost`). Elsewhere than with glibc all of it does nothing.
"""

import ctypes
import os
import sys
import time

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Above all chunks of files, which come and go by thousands; below tiles and a network's activations.
_LARGE_BLOCK = 8 * 1024**2
_KEPT_BYTES = 16 * 1024**2
# Giving back takes some milliseconds: at most a hundredth of the time.
_SECONDS_BETWEEN = 1.0


def give_back() -> None:
    """Give freed memory back to the system, where it can."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def set_up_memory() -> None:
    """Have memory of large arrays go back to the system when they are freed, and come from it in huge pages, where it can.

    Left alone, glibc comes to keep blocks of up to 32 MiB for later, and tiles between them leave gaps: a run was
    measured at 660 MiB that takes 365 MiB so. It holds for the process, from the first prediction on. Smaller blocks, and a
    few MiB of them, are kept: reading an image's chunks took twice the time with them given back as well. All threads take
    theirs from one arena: with one for each thread, as glibc has it, what each keeps added up to 90 MiB over some hundred tiles.

    What goes back has to be cleared again by the system when it is next asked for, page by page: torch was measured to take
    half of its time for that. Of huge pages there are few: 1.7 times faster, in the same memory. (torch looks at the
    variable when it first allocates anything.)
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_ARENA_MAX, 1)


class NowAndThen:
    """Gives memory back at most once a second, however often it is called.

    What lies between blocks that are in use is kept by glibc; over hundreds of tiles that was measured to grow to 60 MiB.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def give_back(self) -> None:
        """Give freed memory back, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN:
            give_back()
            self._last = now
