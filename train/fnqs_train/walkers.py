"""The walker population: electrons of every configuration, kept on the host between its visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fnqs.errors import InputError

START_WIDTH = 0.25
"""Step width (bohr) of a configuration never sampled before; adapted at once."""


class Population:
    """Walkers and step widths of every configuration of a data set, grouped by N.

    Nothing is drawn here: a configuration without walkers is `fresh`, and whoever takes it must start and
    equilibrate them.
    """

    def __init__(self, numbers: np.ndarray, indices: np.ndarray, walkers: int):
        """Reserve room, without touching it, for the chosen configurations.

        Args:
            numbers: (M,) N of every configuration of the data set.
            indices: positions in the data set of those that will be visited.
            walkers: n, walkers of one configuration.
        """
        self.walkers = walkers
        self._row = np.full(len(numbers), -1, dtype=np.int64)
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        for number in np.unique(numbers[indices]):
            members = indices[numbers[indices] == number]
            self._row[members] = np.arange(len(members))
            self._arrays[int(number)] = {
                "positions": np.zeros((len(members), walkers, int(number), 3), np.float32),
                "widths": np.full(len(members), START_WIDTH, np.float32),
                "visits": np.zeros(len(members), np.int32),
                "acceptance": np.zeros(len(members), np.float32),
            }

    def take(self, number: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Walkers (K, n, N, 3) in bohr, widths (K,) in bohr and which of the K are fresh (K,)."""
        arrays, rows = self._arrays[number], self._row[indices]
        return arrays["positions"][rows], arrays["widths"][rows], arrays["visits"][rows] == 0

    def put(
        self,
        number: int,
        indices: np.ndarray,
        positions: np.ndarray,
        widths: np.ndarray,
        acceptance: np.ndarray,
    ) -> None:
        """Store walkers after a visit."""
        arrays, rows = self._arrays[number], self._row[indices]
        arrays["positions"][rows] = positions
        arrays["widths"][rows] = widths
        arrays["acceptance"][rows] = acceptance
        arrays["visits"][rows] += 1

    def forget(self, number: int, indices: np.ndarray) -> None:
        """Make configurations fresh again, after their walkers were lost to non-finite numbers."""
        arrays, rows = self._arrays[number], self._row[indices]
        arrays["visits"][rows] = 0
        arrays["widths"][rows] = START_WIDTH

    @property
    def visited(self) -> int:
        """Number of configurations that have been visited."""
        return sum(int(np.sum(arrays["visits"] > 0)) for arrays in self._arrays.values())

    def state(self) -> dict[str, Any]:
        """Everything to save, {"n008": {"positions": ...}}."""
        return {f"n{number:03d}": arrays for number, arrays in self._arrays.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            InputError: it is of other data or another number of walkers.
        """
        for key, arrays in self.state().items():
            for name, values in arrays.items():
                saved = np.asarray(state.get(key, {}).get(name, ()))
                if saved.shape != values.shape:
                    raise InputError(
                        f"the saved walkers are of other data or another number of walkers: {key} {name} is "
                        f"{list(saved.shape)} there and {list(values.shape)} here; use the run's own config"
                    )
                values[...] = saved
