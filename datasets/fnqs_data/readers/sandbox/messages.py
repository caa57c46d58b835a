"""What the process that reads files is told, and what it answers: each message preceded by its length."""

from __future__ import annotations

import struct

import msgspec

from fnqs_data.readers.options import ReadOptions

LENGTH = struct.Struct("<I")
"""Of the bytes of a message, before it."""


class Message(msgspec.Struct, array_like=True, frozen=True):
    """What the child says: "ready", "record" and its bytes, "bad frame", "bad file" or "note" and a sentence, "end"."""

    kind: str
    data: bytes = b""


class Task(msgspec.Struct, array_like=True, frozen=True):
    """What the child is to read."""

    path: str
    form: str
    start: int | None
    stop: int | None
    step: int | None
    options: ReadOptions
