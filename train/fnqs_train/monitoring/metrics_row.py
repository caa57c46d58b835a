"""What a line of metrics.jsonl holds: the one definition that the loop, plots, reports and tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

import numpy as np

Measured = Literal[
    "energy_per_atom",
    "energy_error",
    "variance_per_atom",
    "acceptance",
    "above_untrained",
    "above_untrained_error",
    "seconds_per_step",
    "data_wait_seconds",
    "update_norm",
    "elapsed_seconds",
]
"""Keys of the numbers that may be drawn."""


class MetricsRow(TypedDict, total=False):
    """One line: averages over the steps since the line before; null where a number is not finite or not known.

    Attributes:
        step: steps done.
        number: N of the last step's configurations.
        energy_per_atom: mean E/N, Ha; jumps from line to line with the configurations.
        energy_error: its standard error, Ha, that of the choice of configurations included.
        variance_per_atom: variance of the local energy over N, Ha^2.
        acceptance: accepted fraction of the moves.
        above_untrained: E/N minus that of the same configurations with the parameters that the training began with,
            Ha, at the last step of these at which it was measured.
        above_untrained_error: its standard error, Ha.
        seconds_per_step: mean duration of a step, s.
        data_wait_seconds: of it, waiting for configurations, s.
        non_finite: names of configurations that were left out for non-finite numbers.
        not_equilibrated: names of configurations whose walkers still remembered their first spin patterns when they had
            made all the sweeps that they are given, and counted all the same.
        taken_back: a sentence for every run-away that was noticed, after which older parameters were taken up again.
        step_length: factor of the length of the next step, below 1 for a while after a run-away.
        update_norm: length of the change of the parameters in the last step.
        fallback: whether the solve of the last step needed its larger damping.
        visited: configurations visited so far.
        elapsed_seconds: since the training began or was resumed, s.
    """

    step: Required[int]
    number: int
    energy_per_atom: float | None
    energy_error: float | None
    variance_per_atom: float | None
    acceptance: float | None
    above_untrained: float | None
    above_untrained_error: float | None
    seconds_per_step: float | None
    data_wait_seconds: float | None
    non_finite: list[str]
    not_equilibrated: list[str]
    taken_back: list[str]
    step_length: float
    update_norm: float | None
    fallback: bool
    visited: int
    elapsed_seconds: float


KEYS = frozenset(MetricsRow.__annotations__)


def check_keys(row: Mapping[str, Any]) -> None:
    """Let nothing into the record that its definition does not know.

    Raises:
        KeyError: a key that is not one of a `MetricsRow`.
    """
    if unknown := sorted(row.keys() - KEYS):
        raise KeyError(f"not a key of the record: {', '.join(unknown)}")


def column(rows: Sequence[MetricsRow], key: Measured) -> np.ndarray:
    """Return one number of every line (T,) in float64, NaN where it is missing or null.

    Raises:
        KeyError: the key is not one of a `MetricsRow`.
    """
    check_keys({key: None})
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
