"""Means and error bars of correlated local energies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MANY_WALKERS = 16
"""Chains enough for an error bar from their spread alone; it is then known to 18 percent."""


@dataclass(frozen=True)
class Estimate:
    """A mean with what its error bar rests on.

    Attributes:
        mean: over all samples, in the unit of the series.
        error: standard error of the mean, autocorrelation included.
        error_of_error: standard error of that error.
        autocorrelation_time: integrated, in time steps of the series: 1/2 plus the sum of the correlations.
        effective_samples: independent samples that would give the same error.
        block: length of the blocks that the error comes from.
        converged: False if the series is too short for its correlations; the error is then a lower bound.
    """

    mean: float
    error: float
    error_of_error: float
    autocorrelation_time: float
    effective_samples: float
    block: int
    converged: bool


def reblocked_error(series: np.ndarray) -> Estimate:
    """Mean of a correlated series by reblocking (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)).

    Neighbours in time are averaged in pairs again and again, for every walker. The block length B is the
    shortest with B^3 > 2 n (error_B / error_1)^4 for n samples, where correlations left over and the noise
    of the error balance (Wolff, Comput. Phys. Commun. 156, 143 (2004); Lee et al., Phys. Rev. E 83, 066706
    (2011)). Walkers must be independent chains: where no block is long enough and there are MANY_WALKERS of
    them, each whole chain is one block.

    Args:
        series: (T, walkers) or (T,) real samples in order of time.

    Raises:
        ValueError: fewer than two samples, complex or non-finite ones.
    """
    values = np.asarray(series)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.size < 2 or np.iscomplexobj(values) or not np.all(np.isfinite(values)):
        raise ValueError(f"a series of shape {values.shape} must be (T, walkers) real finite samples, two or more")
    values = values.astype(np.float64)
    samples = values.size
    mean = float(np.mean(values))
    blocked = values - mean
    levels: list[tuple[int, float, int]] = []  # block length, squared error, number of blocks
    while len(blocked) and blocked.size >= 2:
        levels.append((2 ** len(levels), float(np.mean(blocked**2) / (blocked.size - 1)), blocked.size))
        pairs = len(blocked) // 2
        blocked = 0.5 * (blocked[: 2 * pairs : 2] + blocked[1 : 2 * pairs : 2])
    naive = levels[0][1]
    if naive == 0:
        return Estimate(mean, 0.0, 0.0, 0.5, float(samples), 1, True)
    chosen = next((level for level in levels if level[0] ** 3 > 2 * samples * (level[1] / naive) ** 2), None)
    walkers = values.shape[1]
    if chosen is None and walkers >= MANY_WALKERS:
        square = float(np.mean((values.mean(axis=0) - mean) ** 2) / (walkers - 1))
        chosen = (len(values), square, walkers)
    length, square, number = chosen or max(levels, key=lambda level: level[1])
    inefficiency = square / naive
    error = float(np.sqrt(square))
    return Estimate(
        mean=mean,
        error=error,
        error_of_error=error / float(np.sqrt(2 * (number - 1))),
        autocorrelation_time=inefficiency / 2,
        effective_samples=samples / inefficiency,
        block=length,
        converged=chosen is not None,
    )


class Mended(NamedTuple):
    """Local energies without those that are not finite.

    Attributes:
        energies: (T, walkers), finite; in place of the numbers left out stands the mean of the walker's others.
        lost: numbers left out of the walkers that are kept.
        walkers: left out as a whole, because more than half of their numbers were not finite.
        bias: bound of the change of the mean, in the unit of the energies, were each number left out as far from the
            mean as the farthest that is kept.
    """

    energies: np.ndarray
    lost: int
    walkers: int
    bias: float


def mended(energies: np.ndarray) -> Mended:
    """Leave out single local energies (T, walkers) that are not finite, not the history of their walkers."""
    finite = np.isfinite(energies)
    kept = np.mean(finite, axis=0) >= 0.5
    energies, finite = energies[:, kept], finite[:, kept]
    lost = int(np.sum(~finite))
    if not energies.size:
        return Mended(energies, 0, len(kept), float("nan"))
    means = np.sum(np.where(finite, energies, 0), axis=0) / np.sum(finite, axis=0)
    filled = np.where(finite, energies, means)
    farthest = float(np.max(np.abs(filled - np.mean(filled))))
    return Mended(filled, lost, int(np.sum(~kept)), lost / energies.size * farthest)


def v_score(energy: float, variance: float, n_electrons: int) -> float:
    """N Var / E^2 of a whole cell (Wu et al., Science 386, 296 (2024)), without unit.

    Args:
        energy: energy of the cell, Ha.
        variance: variance of its local energy, Ha^2.
        n_electrons: N in the cell.
    """
    return n_electrons * variance / energy**2
