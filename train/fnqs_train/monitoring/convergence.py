"""When a short training has converged: its energy no longer falls by more than what matters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fnqs_train.monitoring.metrics_row import MetricsRow, column

WINDOW = 20
"""Lines of the record that are averaged; two such windows are compared."""


def has_converged(rows: Sequence[MetricsRow], tolerance: float, window: int = WINDOW) -> bool:
    """Whether the mean of the last window lies less than a tolerance below that of the window before.

    Both are known well enough to say so: the standard error of the difference, from the scatter of the lines, is
    below the tolerance too. Lines without a finite energy do not count.

    Args:
        rows: lines of metrics.jsonl, one a step.
        tolerance: Ha per atom.
        window: lines in a window.
    """
    energies = column(rows, "energy_per_atom")
    energies = energies[np.isfinite(energies)]
    if len(energies) < 2 * window:
        return False
    before, last = energies[-2 * window : -window], energies[-window:]
    error = math.sqrt((np.var(before, ddof=1) + np.var(last, ddof=1)) / window)
    return bool(before.mean() - last.mean() < tolerance and error < tolerance)
