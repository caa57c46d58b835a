"""The processes of a run notice when one of them ends, and then end too, with one sentence.

A collective operation that has lost a partner waits for minutes or for ever. Process 0 keeps a connection to every
other process: the system closes those of a process that dies, and one whose machine is gone is found by its silence.
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
"""Time between two signs of life, and without one after which a process counts as dead."""

GRACE_SECONDS = 2.0
"""Time to come to the same end as another process by oneself."""


class Peers:
    """Guards the connections of this process to the others in a thread of its own.

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
        self._watcher = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Say good-bye at the end of a run: from here on the end of another process is no failure."""
        self._closing.set()
        self._send_all({"bye": True})
        self._watcher.join(BEAT_SECONDS)

    def leave(self, sentence: str, code: int) -> NoReturn:
        """End this process after a failure of its own and tell the others why."""
        self._send_all({"failed": sentence})
        self._end(sentence, code)

    def wait_for_news(self, seconds: float) -> None:
        """Give the watcher time to learn of the death that has just broken a collective operation, and to end us."""
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
        """Take in what a process sent; False when nothing more will come."""
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
                time.sleep(GRACE_SECONDS)  # most failures meet all processes, and each says its own
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
            except OSError:  # a closed connection is the watcher's business
                continue

    def _end(self, sentence: str, code: int) -> NoReturn:
        sys.stdout.flush()
        say_last(f"{self._name}: {sentence}")
        os._exit(code)  # waiting for the others, as JAX does at a regular end, would be waiting for the dead


def delay_aborts() -> None:
    """Let a thread that aborts the process sleep for 6 s (the number of SIGABRT) first.

    JAX's runtime aborts as soon as it misses process 0, at which its service runs, with a page on what may be the
    reason. The watcher knows the reason at the same moment, and has the time to say it and to choose the exit code.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def say_last(sentence: str) -> None:
    """Write a line to standard error and let nothing follow it, such as a complaint of JAX's about the same loss."""
    sys.stderr.flush()
    ours = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    time.sleep(0.1)  # for a write under way to end
    os.write(ours, f"{sentence}\n".encode())
