"""When a short training has converged: its energy no longer falls by more than what matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WINDOW = 20
"""Lines of the record that are averaged; two such windows are compared."""


def has_converged(rows: Sequence[Mapping[str, Any]], tolerance: float, window: int = WINDOW) -> bool:
    """Whether the mean of the last window lies less than a tolerance below that of the window before.

    Both are known well enough to say so: the standard error of the difference, from the scatter of the lines, is
    below the tolerance too. Lines without a finite energy do not count.

    Args:
        rows: lines of metrics.jsonl, one a step.
        tolerance: Ha per atom.
        window: lines in a window.
    """
    energies = [row["energy_per_atom"] for row in rows if row.get("energy_per_atom") is not None]
    if len(energies) < 2 * window:
        return False
    before, last = (np.array(part) for part in (energies[-2 * window : -window], energies[-window:]))
    error = math.sqrt((np.var(before, ddof=1) + np.var(last, ddof=1)) / window)
    return bool(before.mean() - last.mean() < tolerance and error < tolerance)
