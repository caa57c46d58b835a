"""A request to stop: the step in progress is finished and saved, by all processes after the same step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

from fnqs.cli.signals import STOPPING, ignored


class Stopped(KeyboardInterrupt):
    """The run was asked to stop and has saved its state."""


@contextmanager
def stop_requested() -> Iterator[Callable[[int], bool]]:
    """Turn Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 into an answer to the question whether to stop after so many steps.

    Alone, the answer is yes from the signal on. With several processes JAX takes SIGTERM over, and a signal to one
    of them is a yes after the same step for all. A SIGHUP that `nohup` has switched off stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda done: False
        return
    heard = [number for number in STOPPING if number == signal.SIGINT or not ignored(number)]
    if jax.process_count() > 1:
        others = [number for number in heard if number != signal.SIGTERM]
        with _handled(dict.fromkeys(others, lambda: os.kill(os.getpid(), signal.SIGTERM))):
            yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    with _handled(dict.fromkeys(heard, asked.set)):
        yield lambda done: asked.is_set()


@contextmanager
def _handled(actions: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    before = {name: signal.getsignal(name) for name in actions}
    for name, action in actions.items():
        signal.signal(name, lambda *_, action=action: action())
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
