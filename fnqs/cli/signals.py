"""Signals that ask a command to end: what it says then, and that a forgotten terminal does not kill it unheard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, a request to end, a closed terminal, and the warning that SLURM sends before the time is over."""


class StoppedBySignal(KeyboardInterrupt):
    """A signal other than Ctrl-C has ended the command."""


def ignored(number: signal.Signals) -> bool:
    """Whether whoever started this process wants it to live through a signal, as nohup does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn SIGHUP and SIGUSR1, which end a process without a word, into StoppedBySignal inside this block.

    SIGTERM keeps its quick end: nothing depends on a last word of ours, and a process that hangs must not ignore it.
    A part of a command that can save what it has handles all of them by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise StoppedBySignal(f"stopped by {signal.Signals(number).name}")

    taken = [
        number
        for number in STOPPING
        if number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
