"""Reading in a process of its own, for parsers that a damaged file can hang, crash or fill the memory of.

HDF5 is read by a C library that a single flipped bit can send into an endless loop, and most parsers of ASE
believe any count they meet. So everything but extxyz, which we cut into frames ourselves, is read by a child
process with limited memory, which is killed when it takes too long. The child stays for the next file.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fnqs.errors import InputError
from fnqs_data.store.record import Record, decode_record

LENGTH = struct.Struct("<I")
START_PATIENCE = 120.0
"""Seconds for the child to import what it needs."""

READ_PATIENCE = 20.0
"""Seconds for one frame, and one more for every MB of its file."""


DRAIN_PATIENCE = 0.1
"""Seconds; a new child takes about one."""


class Message(msgspec.Struct, array_like=True, frozen=True):
    """What the child says: "ready", "record" with its bytes, "bad frame" or "bad file" with a sentence, "end"."""

    kind: str
    data: bytes = b""


class Task(msgspec.Struct, array_like=True, frozen=True):
    """What the child is to read."""

    path: str
    start: int | None
    stop: int | None
    step: int | None


def iterate_guarded(path: Path, frames: slice | None) -> Iterator[Record | InputError]:
    """Yield what the child makes of a file: records, and errors for bad frames.

    Raises:
        InputError: if the file as a whole cannot be read, or its reading crashes or does not end.
    """
    chosen = frames or slice(None)
    patience = READ_PATIENCE + path.stat().st_size / 1e6
    child = next((waiting for waiting in _taken() if waiting.alive), None) or _Child()
    finished, frame = False, 0
    try:
        child.send(Task(str(path), chosen.start, chosen.stop, chosen.step))
        while True:
            message = child.receive(patience)
            if message is None:
                raise InputError(
                    f"{path}: frame {frame}: its reading crashed or took longer than {patience:.0f} s; is it damaged?"
                )
            if message.kind == "record":
                yield decode_record(message.data)
            elif message.kind == "bad frame":
                yield InputError(message.data.decode())
            else:
                finished = True
                if message.kind == "bad file":
                    raise InputError(message.data.decode())
                return
            frame += 1
    finally:
        # Who stops at a bad frame mostly stops at the last one: then the child is as good as new.
        if finished or child.drain():
            _idle.append(child)
        else:
            child.stop()


class _Child:
    """One child process; messages are read by a thread, so that waiting for them can end."""

    def __init__(self):
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fnqs_data.readers.guarded_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._messages: queue.Queue[Message | None] = queue.Queue(maxsize=64)
        threading.Thread(target=self._listen, daemon=True).start()
        if self.receive(START_PATIENCE) is None:
            self.stop()
            raise OSError("the process that reads files could not be started")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, task: Task) -> None:
        assert self._process.stdin is not None
        # A child that died just now is noticed when no answer comes.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(task) + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float) -> Message | None:
        """Return the next message, None if the child died or is silent for too long."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def drain(self) -> bool:
        """Pass over what is left of a task, if that is soon done."""
        deadline = time.monotonic() + DRAIN_PATIENCE
        while self.alive and (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if message is None or message.kind in ("end", "bad file"):
                return message is not None
        return False

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while len(head := stream.read(LENGTH.size)) == LENGTH.size:
            self._messages.put(msgspec.msgpack.decode(stream.read(*LENGTH.unpack(head)), type=Message))
        self._messages.put(None)


_idle: list[_Child] = []
"""Children that wait for a next file."""


def _taken() -> Iterator[_Child]:
    """Take the waiting children one by one."""
    while _idle:
        yield _idle.pop()


@atexit.register
def stop_children() -> None:
    """End the children that wait; the next file starts a new one."""
    while _idle:
        _idle.pop().stop()


# A forked process must not talk to the children of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
