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
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

import fnqs
import fnqs_data
from fnqs.errors import InputError
from fnqs_data.readers.options import ReadOptions
from fnqs_data.readers.sandbox.messages import LENGTH, Message, Task
from fnqs_data.store.record import Record, decode_record

START_PATIENCE = 120.0
"""Seconds for the child to import what it needs."""

READ_PATIENCE = 20.0
"""Seconds for one frame, and one more for every MB of its file."""

DRAIN_PATIENCE = 0.1
"""Seconds; a new child takes about one."""


def iterate_in_sandbox(
    path: Path, form: str, frames: slice, options: ReadOptions, told: list[str] | None = None
) -> Iterator[Record | InputError]:
    """Yield what the child makes of a file: records, and errors for bad frames.

    Args:
        path: the file.
        form: one of `known_formats.READ`.
        frames: which, counted from the start.
        options: names of labels that the user gave.
        told: takes sentences about what the file says and nobody reads.

    Raises:
        InputError: if the file as a whole cannot be read, if its reading crashes or does not end, or if no
            process could be started to read it.
    """
    patience = READ_PATIENCE + path.stat().st_size / 1e6
    child = next((waiting for waiting in _taken() if waiting.alive), None) or _Child()
    finished, frame = False, 0
    # The child was started in another folder, perhaps; what it says names the file as it was given.
    absolute = str(path.absolute())

    def sentence(data: bytes) -> str:
        return data.decode().replace(absolute, str(path), 1)

    try:
        child.send(Task(absolute, form, frames.start, frames.stop, frames.step, options))
        while True:
            message = child.receive(patience)
            if message is None:
                raise InputError(
                    f"{path}: frame {frame}: its reading crashed or took longer than {patience:.0f} s; is it damaged?"
                )
            if message.kind == "record":
                yield decode_record(message.data)
            elif message.kind == "bad frame":
                yield InputError(sentence(message.data))
            elif message.kind == "note":
                if told is not None:
                    told.append(sentence(message.data))
                continue
            else:
                finished = True
                if message.kind == "bad file":
                    raise InputError(sentence(message.data))
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
        # Isolated: neither the working folder nor PYTHON... variables decide what it imports.
        start = "from fnqs_data.readers.sandbox.sandbox_child import main; main()"
        program = f"import sys; sys.path[:] = {_safe_path()!r}; {start}"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # One thread of linear algebra each: more only reserve memory, which may be limited.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self._messages: queue.Queue[Message | None] = queue.Queue(maxsize=64)
        threading.Thread(target=self._listen, daemon=True).start()
        if self.receive(START_PATIENCE) is None:
            self.stop()
            raise InputError(f"the process that reads files did not start{_memory_limit()}")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, task: Task) -> None:
        assert self.process.stdin is not None
        # A child that died just now is noticed when no answer comes.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(msgspec.json.encode(task) + b"\n")
            self.process.stdin.flush()

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
        self.process.kill()
        self.process.wait()

    def _listen(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while len(head := stream.read(LENGTH.size)) == LENGTH.size:
            self._messages.put(msgspec.msgpack.decode(stream.read(*LENGTH.unpack(head)), type=Message))
        self._messages.put(None)


def _safe_path() -> list[str]:
    """Where the child imports from: as we do, but the working folder last, and only if our own packages lie there.

    A file random.py or ase.py that lies beside the data would be run in place of the module otherwise.
    """
    here = Path.cwd().resolve()
    entries = [Path(entry).absolute() for entry in sys.path if entry]
    elsewhere = [str(entry) for entry in entries if entry.resolve() != here]
    ours = {Path(str(package.__file__)).resolve().parents[1] for package in (fnqs, fnqs_data)}
    return [*elsewhere, str(here)] if here in ours else elsewhere


def _memory_limit() -> str:
    """Return a clause about the limit on memory that this process stands under, if there is one."""
    if not sys.platform.startswith("linux"):
        return ""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f"; memory is limited to {limit / 2**30:.1f} GB (ulimit -v), give it more or convert the file to extxyz"


_idle: list[_Child] = []
"""Children that wait for a next file."""


def _taken() -> Iterator[_Child]:
    """Take the waiting children one by one."""
    while _idle:
        yield _idle.pop()


def waiting() -> list[subprocess.Popen]:
    """Return the processes that wait for a next file, which the last of them gets."""
    return [child.process for child in _idle]


@atexit.register
def stop_children() -> None:
    """End the children that wait; the next file starts a new one."""
    while _idle:
        _idle.pop().stop()


# A forked process must not talk to the children of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
