"""Energies and error bars of a projection, and their limit at time step 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from fnqs.sampling.diffusion import mixed_estimates
from fnqs_eval.energies.statistics import Estimate, reblocked_error


@dataclass(frozen=True)
class ProjectedEnergy:
    """What the steps of a projection say.

    Attributes:
        estimate: of the energy with carried weights, in the unit of the steps' energies.
        plain: mean without them, which a small population makes too high.
        weight_share: independent steps that would say as much as those with carried weights, 0 to 1.
    """

    estimate: Estimate
    plain: float
    weight_share: float


def projected_energy(energies: np.ndarray, log_weights: np.ndarray, skip: int, window: int) -> ProjectedEnergy:
    """Weighted mean of the energies of the steps after the first `skip`, reblocked.

    The error of the ratio of two sums is that of its linear part, w_i (E_i - E) / mean(w).

    Args:
        energies: (S,) of the steps, Ha.
        log_weights: (S,) logarithms of their mean weights, all with the same E_T.
        skip: steps that only give weights to later ones.
        window: steps whose mean weights a step carries.

    Raises:
        ValueError: fewer than two steps after the skipped ones, or a number that is not finite.
    """
    energies, weights = (part[skip:] for part in mixed_estimates(energies, log_weights, window))
    weights = weights / np.mean(weights)
    mean = float(np.mean(weights * energies))
    estimate = reblocked_error(mean + weights * (energies - mean))
    return ProjectedEnergy(estimate, float(np.mean(energies)), float(1 / np.mean(weights**2)))


@dataclass(frozen=True)
class Extrapolation:
    """A straight line through the energies at several time steps.

    Attributes:
        energy: at time step 0, in the unit of the energies.
        error: its standard error.
        slope: change of the energy per unit of the time step.
        chi_square: sum of the squared deviations over the squared errors; None for two time steps.
        probability: of a chi^2 as large by chance; None for two time steps.
    """

    energy: float
    error: float
    slope: float
    chi_square: float | None
    probability: float | None


def extrapolate(
    time_steps: Sequence[float], energies: Sequence[float], errors: Sequence[float]
) -> Extrapolation | None:
    """Fit a straight line with weights 1 / error^2.

    Args:
        time_steps: all different.
        energies: at those.
        errors: their standard errors.

    Returns:
        the line, or None for fewer than two time steps or where an energy or an error is of no use.
    """
    x, y, e = (np.asarray(values, np.float64) for values in (time_steps, energies, errors))
    if len(x) < 2 or not (np.all(np.isfinite(y)) and np.all(np.isfinite(e)) and np.all(e > 0)):
        return None
    design = np.stack([np.ones_like(x), x], axis=1)
    covariance = np.linalg.inv(design.T @ (design / e[:, None] ** 2))
    energy, slope = covariance @ (design.T @ (y / e**2))
    square = float(np.sum(((y - energy - slope * x) / e) ** 2))
    freedom = len(x) - 2
    return Extrapolation(
        energy=float(energy),
        error=float(np.sqrt(covariance[0, 0])),
        slope=float(slope),
        chi_square=square if freedom else None,
        probability=float(chi2.sf(square, freedom)) if freedom else None,
    )
