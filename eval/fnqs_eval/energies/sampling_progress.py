"""What an evaluation says while it runs: what it is doing, how short the error bars are, and the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence

from fnqs.cli.live_line import duration

SECONDS_BETWEEN_LINES = 10.0
"""Least time between two lines that say how far it is."""


class SamplingProgress:
    """Turns what a sampler reports into lines.

    The time left is estimated from parts of the sampling in which nothing was compiled. Work is counted in N^2 a
    configuration; how much of it is done follows from its error bar, which falls with the root of the samples.

    Args:
        announce: called with every line.
        numbers: N of every configuration to come.
        before: energies that were there already.
        seconds_between: least time between two lines that say how far it is.
    """

    def __init__(
        self,
        announce: Callable[[str], None] = lambda text: None,
        numbers: Sequence[int] = (),
        before: int = 0,
        seconds_between: float = SECONDS_BETWEEN_LINES,
    ):
        self._announce, self._between = announce, seconds_between
        self._work = float(sum(number**2 for number in numbers))
        self._total, self._done = before + len(numbers), before
        self._finished, self._active = 0.0, 0.0
        self._timed_work, self._seconds = 0.0, 0.0
        self._programs: set[Hashable] = set()
        self._last = time.monotonic()

    def doing(self, what: str) -> None:
        """Say what begins now."""
        self._announce(f"{what} ...")

    def program(self, what: str, *kind: Hashable) -> bool:
        """Say that a program is about to run, if it may have to be compiled first; returns whether it may."""
        new = (what, *kind) not in self._programs
        self._programs.add((what, *kind))
        if new:
            self.doing(f"compiling N = {kind[0]}, {what}")
        return new

    def part(self, number: int, fractions: Sequence[float], worst: float, seconds: float | None) -> None:
        """Take in a part of the sampling of the active configurations of one N.

        Args:
            number: N.
            fractions: how much of each of them is done, 0 to 1.
            worst: largest error bar among them, Ha per atom; NaN where there is none yet.
            seconds: duration of the part; None where something was compiled in it.
        """
        active = number**2 * sum(fractions)
        if seconds is not None:
            self._timed_work += max(active - self._active, 0.0)
            self._seconds += seconds
        self._active = active
        if time.monotonic() - self._last > self._between:
            self._say(f"error bars up to {1e3 * worst:.2g} mHa per atom" if math.isfinite(worst) else "")

    def finished(self, numbers: Sequence[int]) -> None:
        """Take in that configurations of these N are done; their results are safe."""
        work = float(sum(number**2 for number in numbers))
        self._finished += work
        self._active = max(self._active - work, 0.0)
        self._done += len(numbers)
        if self._done == self._total or time.monotonic() - self._last > self._between:
            self._say()

    def _say(self, more: str = "") -> None:
        self._last = time.monotonic()
        left = self._work - self._finished - self._active
        told = [f"{self._done} of {self._total} energies", more]
        if self._done < self._total:
            known = self._timed_work > 0
            told.append(f"about {duration(left * self._seconds / self._timed_work)} left" if known else "")
        self._announce(", ".join(part for part in told if part))
