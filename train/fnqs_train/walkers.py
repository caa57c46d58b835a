"""The walker population: electrons of every configuration, kept on the host between its visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnqs.errors import InputError
from fnqs_train.distributed.sharded_arrays import Share

START_WIDTH = 0.25
"""Step width (bohr) of a configuration never sampled before; adapted at once."""

NEVER = -1
"""Step of the last visit of a configuration without one."""


class Population:
    """Walkers and step widths of every configuration of a data set, grouped by N.

    Of several processes each keeps an equal share of the walkers of every configuration, and all know the rest, which
    is small. Nothing is drawn here: a configuration without walkers is `fresh`, and whoever takes it must start and
    equilibrate them.

    Attributes:
        walkers: n, walkers of one configuration in all processes.
    """

    def __init__(
        self,
        numbers: np.ndarray,
        indices: np.ndarray,
        walkers: int,
        *,
        process: int = 0,
        processes: int = 1,
        dtype: Any = np.float32,
    ):
        """Reserve room, without touching it, for the chosen configurations.

        Args:
            numbers: (M,) N of every configuration of the data set.
            indices: positions in the data set of those that will be visited.
            walkers: n, walkers of one configuration, a multiple of the processes.
            process: whose share is kept here.
            processes: P, that share the walkers.
            dtype: of the positions.
        """
        self.walkers = walkers
        self._process, self._processes = process, processes
        self._row = np.full(len(numbers), -1, dtype=np.int64)
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        for number in np.unique(numbers[indices]):
            members = indices[numbers[indices] == number]
            self._row[members] = np.arange(len(members))
            self._arrays[int(number)] = {
                "positions": np.zeros((len(members), walkers // processes, int(number), 3), dtype),
                "widths": np.full(len(members), START_WIDTH, np.float32),
                "visits": np.zeros(len(members), np.int32),
                "last_visit": np.full(len(members), NEVER, np.int64),
            }

    def take(self, number: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Walkers of this process (K, n/P, N, 3) in bohr, widths (K,) in bohr and which of the K are fresh (K,)."""
        arrays, rows = self._arrays[number], self._row[indices]
        return arrays["positions"][rows], arrays["widths"][rows], arrays["visits"][rows] == 0

    def shapes(self, number: int, configurations: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and types of what `take` returns for so many configurations."""
        arrays = self._arrays[number]
        kinds = (
            (arrays["positions"], arrays["positions"].dtype),
            (arrays["widths"], np.float32),
            (arrays["visits"], bool),
        )
        return tuple(jax.ShapeDtypeStruct((configurations, *array.shape[1:]), dtype) for array, dtype in kinds)

    def ages(self, number: int, indices: np.ndarray, step: int) -> np.ndarray:
        """Count the steps (K,) since the last visits; 0 for those never visited."""
        last = self.last_visits(number, indices)
        return np.where(last == NEVER, 0, step - last)

    def last_visits(self, number: int, indices: np.ndarray) -> np.ndarray:
        """Return the steps (K,) of the last visits, NEVER for configurations without one."""
        return self._arrays[number]["last_visit"][self._row[indices]]

    def put(
        self,
        number: int,
        indices: np.ndarray,
        positions: np.ndarray,
        widths: np.ndarray,
        step: int,
    ) -> None:
        """Store walkers and widths (K,) in bohr after a visit in a step."""
        arrays, rows = self._arrays[number], self._row[indices]
        arrays["positions"][rows] = positions
        arrays["widths"][rows] = widths
        arrays["last_visit"][rows] = step
        arrays["visits"][rows] += 1

    def forget(self, number: int, indices: np.ndarray) -> None:
        """Make configurations fresh again, after their walkers were lost to non-finite numbers."""
        arrays, rows = self._arrays[number], self._row[indices]
        arrays["visits"][rows] = 0
        arrays["widths"][rows] = START_WIDTH
        arrays["last_visit"][rows] = NEVER

    @property
    def visited(self) -> int:
        """Number of configurations that have been visited."""
        return sum(int(np.sum(arrays["visits"] > 0)) for arrays in self._arrays.values())

    def state(self) -> dict[str, dict[str, Any]]:
        """Everything to save, {"n008": {"positions": Share, "widths": ...}}, as it is in memory."""
        return {
            f"n{number:03d}": arrays | {"positions": Share(arrays["positions"], 1, self._process, self._processes)}
            for number, arrays in self._arrays.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, of whose shared arrays this process's part has been read.

        What older versions have saved besides is not read.

        Raises:
            InputError: it is of other data or another number of walkers.
        """
        for number, arrays in self._arrays.items():
            saved_arrays = state.get(f"n{number:03d}", {})
            for name, values in arrays.items():
                saved = np.asarray(saved_arrays.get(name, ()))
                if saved.shape != values.shape:
                    raise InputError(
                        f"the saved walkers are of other data or another number of walkers: n{number:03d} {name} is "
                        f"{list(saved.shape)} there and {list(values.shape)} here; use the run's own config"
                    )
                values[...] = saved
