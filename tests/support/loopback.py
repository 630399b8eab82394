"""A server of this machine alone, for as long as a test needs it."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running(server: http.server.HTTPServer) -> Iterator[None]:
    """Answer requests in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
