"""Where every command comes in: Ctrl-C is one line from here on, so this imports next to nothing before it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

INTERRUPTED = 130
"""Exit code of a command stopped with Ctrl-C, as a shell reports it."""


def enter(name: str, load: Callable[[], Callable[[], int]]) -> int:
    """Import what commands share, then a command, and run it.

    Args:
        name: of the command, as typed.
        load: imports it and returns its entry point.

    Returns:
        the exit code.
    """
    interruptible = signal.getsignal(signal.SIGINT) == signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, lambda *_: _leave(name))
    from fnqs.cli.start import start

    return start(name, load, interruptible)


def _leave(name: str) -> None:
    # From inside an import an exception may be swallowed or rewritten; nothing is open yet that must be closed.
    os.write(2, f"{name}: interrupted\n".encode())
    os._exit(INTERRUPTED)
