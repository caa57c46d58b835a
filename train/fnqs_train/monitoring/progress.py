"""What a training shows while it runs: what it is doing, how far it has come, whether it learns, and the time left."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TextIO

from fnqs.cli.live_line import LiveLine, duration
from fnqs.cli.notation import with_error
from fnqs_train.monitoring.learning import Gain

EXPLANATION = (
    "E - E₀ is the energy per atom above that of the same configurations with the parameters at the start of the "
    "training, measured now and then; E itself changes with the configurations of a step"
)


class TrainingProgress(LiveLine):
    """Step, E - E₀, variance, acceptance, speed and time left; use as a context manager.

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
        super().__init__(plain_seconds=plain_seconds, stream=stream, quiet=quiet)
        self.total = total
        self.step = first
        self._programs: set[tuple[Hashable, ...]] = set()
        self._compiles = False
        self._step_seconds = 0.0
        self._timed = 0
        self._explained = False

    def __enter__(self) -> TrainingProgress:
        super().__enter__()
        return self

    def program(self, what: str, number: int, *kind: Hashable) -> None:
        """Say that a program is about to run.

        The first time it is compiled: that is said, and the step in which it happens tells nothing of the next ones.

        Args:
            what: it does, as in "training".
            number: N of its configurations.
            kind: what else its shapes depend on.
        """
        known = (what, number, *kind) in self._programs
        self._programs.add((what, number, *kind))
        self._compiles |= not known
        self.doing(what if known else f"compiling N = {number}, {what}", lasting=not known)

    def slowed(self) -> None:
        """Say that something is compiled beside this step, so that its duration tells nothing of the next ones."""
        self._compiles = True

    def update(self, step: int, gain: Gain | None, variance: float, acceptance: float, seconds: float) -> None:
        """Show the state after a step.

        Args:
            step: steps done.
            gain: the energy above that of the untrained state, as last measured; None before.
            variance: variance of the local energy over N, Ha^2.
            acceptance: fraction of accepted moves.
            seconds: duration of the step.
        """
        self.step = step
        compiled, self._compiles = self._compiles, False
        if not compiled:
            self._timed += 1
            self._step_seconds += max(0.05, 1 / self._timed) * (seconds - self._step_seconds)
        if gain is not None and not self._explained:
            self.message(EXPLANATION)
            self._explained = True
        width = len(str(self.total))
        numbers = [f"step {step:>{width}}/{self.total}", f"var/N {variance:.2e} Ha²", f"acc {acceptance:.2f}"]
        if gain is not None:
            numbers.insert(1, f"E - E₀ {with_error(1e3 * gain.energy, 1e3 * gain.error)} mHa")
        self.reached("  ".join([*numbers, self._time()]))

    def _time(self) -> str:
        left = max(self.total - self.step, 0)
        if not self._timed and left:
            return "time left not known before a step without compilation"
        if not self._timed:
            return "done"
        return f"{self._step_seconds:.3g} s/step  {duration(self._step_seconds * left)} left"
