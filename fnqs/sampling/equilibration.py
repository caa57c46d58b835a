"""Whether walkers have forgotten where they started: the memory of their spin pattern, and a signal that is flat.

Each walker starts from a spin pattern of its own, drawn at random (`with_random_spins`). Its memory is the overlap of
that pattern with the present one; averaged over the walkers it vanishes in equilibrium, whatever |psi|^2 is, and it is
what relaxes last. Walkers count as equilibrated as soon as

- they have made FACTOR times as many sweeps as the memory took to fall below FORGOTTEN of its start, or into its noise;
- the memory, averaged over the last quarter of the sweeps, vanishes within `tolerance` standard errors;
- a signal, the local energy, agrees within as many standard errors between the second quarter and the second half.

All averages are over walkers, which are independent. How long is tried depends on N and density (`longest`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.periodic.smooth_distance import SmoothLattice, smooth_pair
from fnqs.wavefunction import Context

FORGOTTEN = float(np.exp(-2))
"""Part of the first memory below which FACTOR times as many sweeps are enough: what is left then is exp(-2 FACTOR)."""

FACTOR = 2.5
"""Sweeps in all over those after which the memory had fallen to FORGOTTEN."""

FEWEST = 8
"""Points of the history that a verdict needs: with fewer, a slow drift hides in the noise."""

OUTLIER = 8.0
"""Median absolute deviations from the median at which the signal is cut off, so that no walker alone decides."""


SWEEPS_AT_LEAST, SWEEPS_AN_ELECTRON = 400, 20
"""Sweeps after which equilibration is given up: so many, and so many times N max(1, r_s^2)."""


def longest(number: int, density_parameter: float) -> int:
    """Sweeps after which equilibration is given up.

    A move of all electrons is the shorter the more of them there are, and the cores of the protons, not r_s, set its
    length where the density is low. Ten times what cells of N = 2 to 54 have needed.

    Args:
        number: N.
        density_parameter: r_s, bohr.
    """
    return round(SWEEPS_AT_LEAST + SWEEPS_AN_ELECTRON * number * max(1.0, density_parameter**2))


def spin_pattern(lattice: SmoothLattice, protons: jax.Array, electrons: jax.Array) -> jax.Array:
    """Count the electrons nearest to each proton, spin up minus spin down.

    Args:
        lattice: smooth distances.
        protons: (N, 3) bohr.
        electrons: (N, 3) bohr, spin up first.

    Returns:
        (N,) in the precision of the electrons.
    """
    number = len(electrons)
    square, _ = smooth_pair(lattice.astype(electrons.dtype), electrons[:, None] - protons.astype(electrons.dtype))
    spins = jnp.where(jnp.arange(number) < number // 2, 1, -1).astype(electrons.dtype)
    return jnp.zeros(len(protons), electrons.dtype).at[jnp.argmin(square, axis=1)].add(spins)


def spin_patterns(contexts: Context, walkers: jax.Array) -> jax.Array:
    """Spin patterns (K, n, N) of walkers (K, n, N, 3) of K configurations."""
    of_walkers = jax.vmap(spin_pattern, (None, None, 0))
    return jax.vmap(of_walkers)(contexts.lattice, contexts.protons, walkers)


@dataclass(frozen=True)
class Verdict:
    """What the history of one configuration says.

    Attributes:
        settled: whether it counts as equilibrated.
        sweeps: made so far.
        memory: overlap with the first spin pattern over that of the pattern with itself, in the last quarter.
        memory_error: its standard error.
        drift: change of the signal from the second quarter to the second half, in its unit.
        drift_error: its standard error.
    """

    settled: bool
    sweeps: int
    memory: float
    memory_error: float
    drift: float
    drift_error: float


class History:
    """Memory and signal of the walkers of one configuration, point by point.

    Args:
        start: overlap of the first patterns with themselves, averaged over the walkers.
        tolerance: standard errors that count as agreement.
    """

    def __init__(self, start: float, tolerance: float = 2.0):
        self._start, self._tolerance = max(start, 1e-6), tolerance
        self._sweeps: list[int] = []
        self._memory: list[np.ndarray] = []
        self._signal: list[np.ndarray] = []

    def add(self, sweeps: int, memory: np.ndarray, signal: np.ndarray) -> None:
        """Take in a point.

        Args:
            sweeps: since the point before.
            memory: (n,) overlaps of the walkers with their first patterns.
            signal: (n,) of the walkers, real.
        """
        self._sweeps.append(sweeps + (self._sweeps[-1] if self._sweeps else 0))
        self._memory.append(np.asarray(memory, np.float64) / self._start)
        self._signal.append(np.asarray(signal, np.float64))

    def verdict(self) -> Verdict:
        """Judge the points so far; before there are FEWEST nothing counts as equilibrated."""
        points = len(self._sweeps)
        half, quarter = points // 2, min(points - 1, points - (points - points // 2) // 2)
        memory, memory_error = _mean(np.mean(self._memory[quarter:], axis=0))
        if points < FEWEST:
            return Verdict(False, self._sweeps[-1], memory, memory_error, np.nan, np.nan)
        signal = _cut(np.array(self._signal[half // 2 :]))
        before, after = np.split(signal, [half - half // 2])
        drift, drift_error = _mean(np.mean(after, axis=0) - np.mean(before, axis=0))
        fallen = next((i for i, values in enumerate(self._memory) if _has_fallen(values)), None)
        enough = fallen is not None and self._sweeps[-1] >= FACTOR * self._sweeps[fallen]
        flat = abs(memory) <= self._tolerance * memory_error and abs(drift) <= self._tolerance * drift_error
        return Verdict(bool(enough and flat), self._sweeps[-1], memory, memory_error, drift, drift_error)


def _has_fallen(memory: np.ndarray) -> bool:
    mean, error = _mean(memory)
    return mean < max(FORGOTTEN, error)


def _cut(values: np.ndarray) -> np.ndarray:
    """Cut outliers (T, n) off, all at the same two bounds: so what is stationary stays so, however skew it is."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    centre = np.median(values[finite])
    spread = OUTLIER * np.median(np.abs(values[finite] - centre))
    return np.clip(np.where(finite, values, centre), centre - spread, centre + spread)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean of independent values with its standard error; infinite for fewer than two."""
    if len(values) < 2:
        return float(np.mean(values)) if len(values) else 0.0, float("inf")
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
