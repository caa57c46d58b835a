"""A sign of life while files are read: on a terminal one line that counts, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

QUIET = 1.0
"""Seconds before anything is said; most files are read by then."""

TERMINAL_PAUSE, LOG_PAUSE = 0.2, 10.0
"""Seconds between two signs."""


def shown(items: Iterable[T], name: str, command: str = "fnqs-data") -> Iterator[T]:
    """Yield the items of a file as they come, and count them on stderr while it takes long.

    Args:
        items: frames of the file.
        name: of the file.
        command: that reads it, for the start of a line.
    """
    terminal = sys.stderr.isatty()
    pause = TERMINAL_PAUSE if terminal else LOG_PAUSE
    last = time.monotonic() + (QUIET if terminal else LOG_PAUSE) - pause
    count = written = 0
    try:
        for item in items:
            yield item
            count += 1
            if time.monotonic() - last > pause:
                text = f"{command}: reading {name}: {count} frames"
                print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
                last, written = time.monotonic(), len(text)
    finally:
        if terminal and written:
            print("\r" + " " * written + "\r", end="", file=sys.stderr, flush=True)
