"""What a training shows while it runs: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fnqs.cli.notation import with_error


class TrainingProgress:
    """Step, E/N, variance, acceptance, speed and time left; use as a context manager.

    Args:
        total: steps at the end of the run.
        first: steps done before, for a resumed run.
        plain_seconds: seconds between two lines where the output is not a terminal.
        stream: where to write; standard output if None.
        quiet: show nothing, as in all processes of a run but one.
    """

    def __init__(
        self,
        total: int,
        first: int = 0,
        *,
        plain_seconds: float = 10.0,
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        self.total = total
        self.step = first
        self.plain_seconds = plain_seconds
        self._quiet = quiet
        self._stream = stream or sys.stdout
        self._console = Console(file=self._stream, highlight=False)
        self._live = Live(Text("compiling ..."), console=self._console, refresh_per_second=4, transient=True)
        self._step_seconds: float | None = None
        self._updates = 0
        self._last_line = -float("inf")
        self._line = ""
        self._printed = ""

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._console.is_terminal and not self._quiet:
            self._live.stop()
        if self._line and self._line != self._printed:
            self._print(self._line)

    def update(
        self,
        step: int,
        energy: float,
        error: float | None,
        variance: float,
        acceptance: float,
        seconds: float,
    ) -> None:
        """Show the state after a step.

        Args:
            step: steps done.
            energy: mean energy of the step, Ha per atom.
            error: its standard error, Ha per atom, if known.
            variance: variance of the local energy over N, Ha^2.
            acceptance: fraction of accepted moves.
            seconds: duration of the step.
        """
        self.step = step
        if self._quiet:
            return
        self._updates += 1
        if self._updates == 2 or self._step_seconds is None:
            self._step_seconds = seconds  # the first step compiles: its duration says nothing about the next
        else:
            self._step_seconds += max(0.05, 1 / self._updates) * (seconds - self._step_seconds)
        left = duration(self._step_seconds * max(self.total - step, 0))
        width = len(str(self.total))
        self._line = (
            f"step {step:>{width}}/{self.total}  E/N {with_error(energy, error)} Ha  "
            f"var/N {variance:.2e} Ha²  acc {acceptance:.2f}  {self._step_seconds:.3g} s/step  {left} left"
        )
        if self._console.is_terminal:
            self._live.update(Text(self._line, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._last_line >= self.plain_seconds:
            self._print(self._line)

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
