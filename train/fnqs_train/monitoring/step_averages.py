"""Averages over the steps between two lines of the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnqs_train.monitoring.learning import Gain
from fnqs_train.step import StepReport


class StepAverages:
    """Averages over the steps since the last line of metrics.jsonl.

    Args:
        state: averages that a checkpoint saved between two lines, from `state()`.
    """

    def __init__(self, state: Sequence[Sequence[Any]] = ((), (), ())):
        self._rows: list[tuple[float, ...]] = [tuple(row) for row in state[0]]
        self._lost: list[str] = list(state[1])
        # Checkpoints of old have but two, three or four parts.
        self._gain = Gain(*state[2]) if len(state) > 2 and state[2] else None
        self._unsettled: list[str] = list(state[3]) if len(state) > 3 else []
        self._taken_back: list[str] = list(state[4]) if len(state) > 4 else []

    def add(
        self,
        report: StepReport,
        lost: list[str],
        seconds: float,
        waited: float,
        gain: Gain | None = None,
        unsettled: Sequence[str] = (),
        taken_back: str = "",
    ) -> None:
        """Take in a step.

        Args:
            report: of the step.
            lost: configurations that are not counted.
            seconds: duration of the step, s.
            waited: of it, waiting for configurations, s.
            gain: what was learned, where it was measured.
            unsettled: configurations that were not equilibrated within the sweeps that they are given.
            taken_back: a sentence on a run-away that was noticed, empty if none was.
        """
        self._taken_back += [taken_back] if taken_back else []
        self._unsettled += [name for name in unsettled if name not in self._unsettled]
        self._gain = gain or self._gain
        self._lost += [name for name in lost if name not in self._lost]
        good = report.finite
        if good.any():
            means = (float(np.mean(values[good])) for values in (report.energy, report.variance, report.acceptance))
            self._rows.append((*means, seconds, waited))

    def state(self) -> list[list[Any]]:
        """Everything to save, as JSON values."""
        return [
            [list(row) for row in self._rows],
            list(self._lost),
            list(self._gain or ()),
            list(self._unsettled),
            list(self._taken_back),
        ]

    def _mean(self, column: int) -> float:
        return float(np.mean([row[column] for row in self._rows])) if self._rows else float("nan")

    @property
    def _error(self) -> float | None:
        """Standard error of the mean from the scatter of the steps, that of the configurations included."""
        if len(self._rows) < 3:
            return None
        return float(np.std([row[0] for row in self._rows], ddof=1) / np.sqrt(len(self._rows)))

    @property
    def variance(self) -> float:
        """Mean variance/N, Ha^2."""
        return self._mean(1)

    def row(self) -> dict[str, float | list[str] | None]:
        """Values of a line of the record."""
        return {
            "energy_per_atom": self._mean(0),
            "energy_error": self._error,
            "variance_per_atom": self.variance,
            "acceptance": self._mean(2),
            "above_untrained": None if self._gain is None else self._gain.energy,
            "above_untrained_error": None if self._gain is None else self._gain.error,
            "seconds_per_step": self._mean(3),
            "data_wait_seconds": self._mean(4),
            "non_finite": self._lost,
            "not_equilibrated": self._unsettled,
            "taken_back": self._taken_back,
        }
