"""One line that says what is going on: redrawn in place on a terminal, printed now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

SHOWN_SECONDS = 2.0
"""How long something is going on before a terminal says for how long."""


class LiveLine:
    """What was reached and what is being done; use as a context manager.

    Args:
        plain_seconds: seconds between two lines where the output is not a terminal.
        stream: where to write; standard output if None.
        quiet: show nothing, as in all processes of a run but one.
    """

    def __init__(self, *, plain_seconds: float = 10.0, stream: TextIO | None = None, quiet: bool = False):
        self._plain_seconds, self._quiet = plain_seconds, quiet
        self._stream = stream or sys.stdout
        self._console = Console(file=self._stream, highlight=False)
        self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)
        self._line, self._printed, self._last_line = "", "", -float("inf")
        self._doing, self._since = "", time.monotonic()

    def __enter__(self) -> LiveLine:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._console.is_terminal and not self._quiet:
            self._live.stop()
        if self._line and self._line != self._printed:
            self._print(self._line)

    def __rich__(self) -> Text:
        """Draw the line, which a terminal does four times a second."""
        doing = self._doing
        if doing and time.monotonic() - self._since > SHOWN_SECONDS:
            doing += f" for {duration(time.monotonic() - self._since)}"
        return Text("  ".join(part for part in (self._line, doing) if part), no_wrap=True, overflow="ellipsis")

    def doing(self, what: str, *, lasting: bool = False) -> None:
        """Say what begins now; something lasting is worth a line of its own where there is no terminal."""
        if what == self._doing:
            return
        self._doing, self._since = what, time.monotonic()
        if lasting and not self._quiet and not self._console.is_terminal:
            self._print(f"{what} ...")

    def reached(self, line: str) -> None:
        """Show what was reached; the last such line stays."""
        if self._quiet:
            return
        self._line = line
        if not self._console.is_terminal and time.monotonic() - self._last_line >= self._plain_seconds:
            self._print(line)

    def message(self, text: str) -> None:
        """Print a line that stays, above the live one."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._console.print(Text(text))
        else:
            print(text, file=self._stream, flush=True)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
        self._last_line = time.monotonic()
        self._printed = line


def duration(seconds: float) -> str:
    """Write a duration in the two units that matter: "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
