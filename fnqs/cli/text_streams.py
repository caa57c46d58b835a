"""Standard output and error that take every text, whatever encoding the environment has chosen for them."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TextIO, cast

HANDLER = "fnqs-plain"

PLAIN = {
    "²": "^2",
    "³": "^3",
    "±": "+-",
    "×": "x",
    "·": ".",
    "Å": "A",
    "Γ": "Gamma",
    "Σ": "sum",
    "π": "pi",
    "ψ": "psi",
    "λ": "lambda",
    "φ": "phi",
    "β": "beta",
    "−": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "…": "...",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "━": "=",
    "─": "-",
    "│": "|",
}
"""How signs that we print are written where an encoding lacks them."""


def accept_every_text() -> None:
    """Let standard output and error write what their encoding lacks in plain letters instead of failing.

    A result must not be lost to the "²" of its unit (PYTHONIOENCODING=ascii, LC_ALL=C, a log file in latin-1), nor to
    a file name that is not in the encoding of the file system.
    """
    codecs.register_error(HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def let_go_of_output() -> None:
    """Send what Python still holds for a closed pipe or terminal to nowhere, or it would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def lasting(stream: TextIO) -> TextIO:
    """Return a stream for work that goes on when nobody reads it any more: a closed pipe, a terminal that hung up."""
    return cast(TextIO, _Lasting(stream))


class _Lasting:
    """Writes to a stream, and to nowhere once that has refused; everything else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._stream = _nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._stream = _nowhere()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(sign: str) -> str:
    """Write one sign in ASCII: as in PLAIN, without its accent, or as a question mark."""
    if sign in PLAIN:
        return PLAIN[sign]
    bare = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return bare or "?"
