"""The child process of `sandbox`: reads the files it is told to, one after the other, until its input ends.

It runs no program, opens no connection, unpickles nothing and writes no file, whatever a parser tries: some of
ASE's ask the simulation program that they know for its version.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from fnqs.errors import InputError
from fnqs_data.readers.formats.ase_readers import iterate_other
from fnqs_data.readers.formats.qmc_hamm import iterate_qmc_hamm
from fnqs_data.readers.notes import Notes
from fnqs_data.readers.sandbox.messages import LENGTH, Message, Task
from fnqs_data.store.record import Record, encode_record

MEMORY = 1 << 30
"""Bytes that reading may add to what the imports took."""


def main() -> None:
    """Answer every task on stdin with messages on stdout."""
    # Parsers that print must not print into the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _limit_memory()
    sys.dont_write_bytecode = True
    sys.addaudithook(forbid)
    _answer(answers, "ready")
    for line in sys.stdin.buffer:
        task = msgspec.json.decode(line, type=Task)
        notes = Notes()
        try:
            for item in _items(task, notes):
                if isinstance(item, InputError):
                    _answer(answers, "bad frame", str(item).encode())
                else:
                    _answer(answers, "record", encode_record(item))
        except InputError as error:
            _answer(answers, "bad file", str(error).encode())
        else:
            for sentence in notes.sentences(Path(task.path)):
                _answer(answers, "note", sentence.encode())
            _answer(answers, "end")


def _items(task: Task, notes: Notes) -> Iterator[Record | InputError]:
    path, frames = Path(task.path), slice(task.start, task.stop, task.step)
    if task.form != "qmc-hamm":
        yield from iterate_other(path, task.form, frames, task.options, notes)
    elif 0 in range(1)[frames]:
        yield from iterate_qmc_hamm(path, task.options, notes)


def _answer(stream: BinaryIO, kind: str, data: bytes = b"") -> None:
    message = msgspec.msgpack.encode(Message(kind, data))
    stream.write(LENGTH.pack(len(message)) + message)
    stream.flush()


FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("socket.connect", "socket.getaddrinfo", "pickle.find_class"),
}
"""Events of Python's audit hooks."""


def forbid(event: str, arguments: tuple) -> None:
    """Refuse what reading a file never needs."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in FORBIDDEN or writes:
        raise PermissionError(f"reading a file must not need {event}")


def _limit_memory() -> None:
    """Let allocations fail beyond a ceiling; only Linux can say how much is in use."""
    if sys.platform.startswith("linux"):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limits = [used + MEMORY, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
