"""Running levels of many quantities, and whether new values lie far above them.

A level follows its values slowly, upwards more slowly than downwards, and its scatter is that of one value against the
one before, none at more than its usual size: so neither a single wild value nor the beginning of a slow rise moves what
later values are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

RATE = 0.1
"""Part of a new value in the mean and in the scatter; the first values count more."""

FEWEST = 8
"""Values before a level is known well enough to say that another is too high."""

UP, DOWN, WILD = 1.0, 5.0, 2.0
"""Standard deviations at which a value above or below the level, and the change from one to the next, are cut."""


class Levels:
    """Mean and scatter of so many quantities, and how often in a row each was too high.

    Args:
        number: of quantities.
    """

    def __init__(self, number: int):
        self._arrays = {
            "mean": np.zeros(number, np.float32),
            "square": np.zeros(number, np.float32),
            "count": np.zeros(number, np.int32),
            "last": np.zeros(number, np.float32),
            "strikes": np.zeros(number, np.int32),
        }

    def add(self, which: np.ndarray, values: np.ndarray, high: float) -> np.ndarray:
        """Take in new values of some quantities, those that are too high excepted.

        Args:
            which: (K,) quantities, each once.
            values: (K,) finite.
            high: standard deviations above the level from which a value is too high.

        Returns:
            (K,) how often in a row each has been too high, this time included.
        """
        mean, square, count, last, strikes = (array[which] for array in self._arrays.values())
        scatter, known = np.sqrt(square), count >= FEWEST
        above = known & (values - mean > high * scatter)
        strikes = np.where(above, strikes + 1, 0)
        # A value and the one before scatter against each other by the root of two as much as about their mean.
        change, noise = values - mean, np.where(count, values - last, 0) / np.sqrt(2)
        change = np.where(known, np.clip(change, -DOWN * scatter, UP * scatter), change)
        noise = np.where(known, np.clip(noise, -WILD * scatter, WILD * scatter), noise)
        updated = {
            "mean": mean + np.maximum(RATE, 1 / (count + 1)) * change,
            "square": square + np.maximum(RATE, 1 / np.maximum(count, 1)) * (noise**2 - square),
            "count": count + 1,
            "last": values,
        }
        for name, new in updated.items():
            array = self._arrays[name]
            array[which] = np.where(above, array[which], new)
        self._arrays["strikes"][which] = strikes
        return strikes

    def forget(self, which: np.ndarray) -> None:
        """Begin anew with some quantities."""
        for array in self._arrays.values():
            array[which] = 0

    def calm_down(self) -> None:
        """Count anew how often in a row quantities are too high."""
        self._arrays["strikes"][:] = 0

    def state(self) -> dict[str, np.ndarray]:
        """Everything to save, as it is in memory."""
        return self._arrays

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state of as many quantities."""
        for name, array in self._arrays.items():
            array[...] = state[name]
