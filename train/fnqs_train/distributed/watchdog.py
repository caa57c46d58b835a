"""A watchdog in every process of a run: when one process dies, the others end too, each with one sentence.

Without it they would hang: a collective operation that lacks a participant waits for minutes, or for ever. Process 0
keeps a TCP connection to every other process. When a process dies, the operating system closes its connection; when a
whole machine is gone, its heartbeats stop.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.rendezvous import send_line

LOST = 3
"""Exit code of a process that ended because another one did."""

BEAT_SECONDS, SILENT_SECONDS = 5.0, 60.0
"""Interval of the heartbeats, and the time without one after which a process counts as dead."""

GRACE_SECONDS = 2.0
"""Time that this process has to run into the same failure as another one, and to report it itself."""


class Watchdog:
    """A thread that watches the connections of this process to the others.

    Args:
        name: of the command, which starts the sentence.
        place: of this process.
        connections: to the other processes that this one knows, by their number.
    """

    def __init__(self, name: str, place: Place, connections: dict[int, socket.socket]):
        self._name, self._place = name, place
        self._connections = connections
        self._heard = dict.fromkeys(connections, time.monotonic())
        self._unread = dict.fromkeys(connections, b"")
        self._closing = threading.Event()
        delay_aborts()
        self._watcher = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Announce the regular end of this process; from here on the end of another one is no failure."""
        self._closing.set()
        self._send_all({"bye": True})
        self._watcher.join(BEAT_SECONDS)

    def leave(self, sentence: str, code: int) -> NoReturn:
        """End this process after a failure of its own and tell the others why."""
        self._send_all({"failed": sentence})
        self._end(sentence, code)

    def wait_for_news(self, seconds: float) -> None:
        """Wait, after a failed collective operation, for the thread to learn which process died and to end this one."""
        self._watcher.join(seconds)

    def _watch(self) -> None:
        next_beat = time.monotonic() + BEAT_SECONDS
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, process)
            while selector.get_map():
                for ready, _ in selector.select(0.5):
                    if not self._read(ready.data):
                        selector.unregister(ready.fileobj)
                now = time.monotonic()
                if now > next_beat:
                    self._send_all({"beat": True})
                    next_beat = now + BEAT_SECONDS
                for process in [key.data for key in selector.get_map().values()]:
                    if now - self._heard[process] > SILENT_SECONDS:
                        self._lose(process, f"silent for {SILENT_SECONDS:.0f} s")

    def _read(self, process: int) -> bool:
        """Read the messages of a process; False when nothing more will come."""
        try:
            data = self._connections[process].recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self._heard[process] = time.monotonic()
        *lines, self._unread[process] = (self._unread[process] + data).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "bye" in message:
                return False
            if "failed" in message:
                time.sleep(GRACE_SECONDS)  # most failures occur in all processes, and each reports its own
                self._lose(process, f"it stopped: {message['failed']}")
            if "lost" in message and not self._closing.is_set():
                self._end(message["lost"], LOST)
        if not data:
            self._lose(process, "its connection was closed")
        return bool(data)

    def _lose(self, process: int, how: str) -> None:
        if self._closing.is_set():
            return
        whose = f"process {process} of {self._place.processes}"
        sentence = f"{whose} was lost ({how}); go on from the last checkpoint with --resume"
        self._send_all({"lost": sentence})
        self._end(sentence, LOST)

    def _send_all(self, message: dict[str, Any]) -> None:
        for connection in self._connections.values():
            try:
                send_line(connection, message)
            except OSError:  # the watching thread deals with closed connections
                continue

    def _end(self, sentence: str, code: int) -> NoReturn:
        sys.stdout.flush()
        say_last(f"{self._name}: {sentence}")
        os._exit(code)  # waiting for the others, as JAX does at a regular end, would be waiting for the dead


def delay_aborts() -> None:
    """Make a thread that aborts the process sleep for 6 s first.

    JAX's runtime aborts, with a page of possible reasons, as soon as it loses process 0, where its coordination service
    runs. The watchdog knows the reason at the same moment; the delay gives it time to report it and to set the exit
    code. The handler of SIGABRT becomes the C function `sleep`, whose argument is then the signal's number, 6.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def say_last(sentence: str) -> None:
    """Write a line to standard error and discard everything written after it, such as JAX's report of the same loss."""
    sys.stderr.flush()
    ours = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    time.sleep(0.1)  # for a write under way to end
    os.write(ours, f"{sentence}\n".encode())
