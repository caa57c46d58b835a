"""A port for processes that meet: free, as is the one after it, and never given to somebody's outgoing connection."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below the ports that Linux hands out: a client that waits for process 0 could be given that very port."""


def free_port() -> int:
    """Find such a port."""
    while True:
        port = random.randrange(FIRST, LAST)
        try:
            for one in (port, port + 1):
                socket.create_server(("", one)).close()
        except OSError:
            continue
        return port
