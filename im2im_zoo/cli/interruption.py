"""Signals by which a cluster or a terminal ends a command: SIGTERM at the wall time, SIGHUP when the connection is lost.

Python handles a signal only between two of its own instructions, so not while a network or another library computes. A
thread, which the system wakes at once, ends the process then.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {int(signal.SIGTERM): 143}
if hasattr(signal, "SIGHUP"):
    EXIT_CODES[int(signal.SIGHUP)] = 129
MESSAGE = "interrupted; no incomplete output was left that looks finished"
# Time for an orderly end: the records of finished tiles are written, and the lock is released.
_GRACE_S = 1.0

_reported, _is_urgent = threading.Event(), threading.Event()


def exit_on_signals() -> None:
    """Exit as for Ctrl-C, with clean-up; a signal that is ignored, as SIGHUP is under nohup, stays so."""
    for number in EXIT_CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)


@contextmanager
def exit_in_time() -> Iterator[None]:
    """End the process about a second after a signal that comes in the `with` block, whatever it is doing.

    Only for work that can be killed at any time without harm.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()
    try:
        yield
    except SystemExit:
        _is_urgent.set()
        raise
    finally:
        signal.set_wakeup_fd(before)
        sender.close()


def end_if_urgent(code: int) -> None:
    """End the process at once if a signal came within `exit_in_time`: closing the libraries may take seconds.

    Args:
        code: of the process.
    """
    if _is_urgent.is_set():
        sys.stdout.flush()
        _report()
        os._exit(code)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(EXIT_CODES[number])


def _watch(receiver: socket.socket) -> None:
    """End the process when a signal has arrived and the time for an orderly end is over."""
    with receiver:
        while received := receiver.recv(64):
            for number in received:
                if number in EXIT_CODES and signal.getsignal(number) is _exit:
                    time.sleep(_GRACE_S)
                    _report()
                    os._exit(EXIT_CODES[number])


def _report() -> None:
    if not _reported.is_set():
        _reported.set()
        os.write(2, f"error: {MESSAGE}\n".encode())
