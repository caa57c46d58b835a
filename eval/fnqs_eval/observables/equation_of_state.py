"""E(V) of a phase from energies with error bars: a fit, pressures, enthalpies and where two phases cross.

E(V) is fitted in x = V^(-1/3) by a polynomial, the stabilised-jellium form of Alchagirov et al., Phys. Rev. B 63,
224115 (2001): the powers stand for Coulomb (x), kinetic (x^2) and gradient (x^3) energy, and unlike other forms it
needs no minimum in the range, which compressed hydrogen does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial
from scipy.optimize import root_scalar

DEGREE = 3
"""Of the polynomial, or one less than the number of points."""

DRAWS = 400
"""Fits to energies drawn within their errors, from which the errors of what follows come."""

GRID = 60
"""Volumes at which curves are drawn."""


@dataclass(frozen=True)
class EquationOfState:
    """A fit and its draws, all per atom.

    Attributes:
        volumes: (M,) ascending, bohr^3.
        energies, errors: (M,) Ha.
        curves: the fit, then DRAWS fits of drawn energies.
        chi_square: of the fit per degree of freedom; NaN where there is none.
    """

    volumes: np.ndarray
    energies: np.ndarray
    errors: np.ndarray
    curves: list[Polynomial]
    chi_square: float

    def energy(self, volumes: np.ndarray) -> np.ndarray:
        """Energies (1 + DRAWS, ...) of the fit and its draws, Ha."""
        return np.array([curve(volumes ** (-1 / 3)) for curve in self.curves])

    def pressure(self, volumes: np.ndarray) -> np.ndarray:
        """Pressures (1 + DRAWS, ...) -dE/dV, Ha/bohr^3."""
        return np.array([curve.deriv()(volumes ** (-1 / 3)) * volumes ** (-4 / 3) / 3 for curve in self.curves])

    def enthalpy(self, pressure: float) -> np.ndarray:
        """H = E + P V (1 + DRAWS,) in Ha; NaN for a draw that has this pressure nowhere in its range."""
        found = []
        for curve in self.curves:
            slope = curve.deriv()

            def excess(volume: float, slope=slope) -> float:
                return float(slope(volume ** (-1 / 3)) * volume ** (-4 / 3) / 3 - pressure)

            low, high = self.volumes[0], self.volumes[-1]
            if excess(low) * excess(high) > 0:
                found.append(np.nan)
                continue
            volume = float(root_scalar(excess, bracket=(low, high)).root)
            found.append(float(curve(volume ** (-1 / 3))) + pressure * volume)
        return np.array(found)


def fit(volumes: np.ndarray, energies: np.ndarray, errors: np.ndarray, seed: int = 0) -> EquationOfState:
    """Fit energies (M,) in Ha at volumes (M,) in bohr^3, both per atom, with weights 1 / error.

    Raises:
        ValueError: fewer than three different volumes.
    """
    order = np.argsort(volumes)
    volumes, energies, errors = (np.asarray(part, np.float64)[order] for part in (volumes, energies, errors))
    if len(np.unique(volumes)) < 3:
        raise ValueError("an equation of state needs three volumes or more")
    x, sizes = volumes ** (-1 / 3), np.maximum(errors, 1e-12)
    degree = min(DEGREE, len(volumes) - 1)
    generator = np.random.default_rng(seed)
    drawn = energies + errors * generator.standard_normal((DRAWS, len(energies)))
    curves = [Polynomial.fit(x, values, degree, w=1 / sizes) for values in (energies, *drawn)]
    freedom = len(volumes) - degree - 1
    chi = float(np.sum(((curves[0](x) - energies) / sizes) ** 2) / freedom) if freedom else float("nan")
    return EquationOfState(volumes, energies, errors, curves, chi)


@dataclass(frozen=True)
class Crossing:
    """Where the enthalpies of two phases are equal.

    Attributes:
        pressure: Ha/bohr^3.
        error: its standard error, from draws that cross.
        share: of the draws that cross within the common range of pressures.
    """

    pressure: float
    error: float
    share: float


def crossings(first: EquationOfState, second: EquationOfState) -> list[Crossing]:
    """Pressures at which two phases change places, in the range that both cover."""
    ranges = [one.pressure(one.volumes[[0, -1]])[0] for one in (first, second)]
    low, high = max(min(one) for one in ranges), min(max(one) for one in ranges)
    if not low < high:
        return []
    pressures = np.linspace(low, high, GRID)
    difference = np.array([first.enthalpy(p) - second.enthalpy(p) for p in pressures[1:-1]])  # (GRID - 2, 1 + DRAWS)
    every = [_zeros(pressures[1:-1], column) for column in difference.T]
    found = []
    for place, pressure in enumerate(every[0]):
        nearest = np.array([zeros[np.argmin(np.abs(zeros - pressure))] for zeros in every[1:] if len(zeros)])
        error = float(np.std(nearest, ddof=1)) if len(nearest) > 1 else float("nan")
        found.append(Crossing(float(every[0][place]), error, len(nearest) / max(1, len(every) - 1)))
    return found


def _zeros(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Zeros of the line through points; NaN has none."""
    change = np.flatnonzero(y[:-1] * y[1:] < 0)
    return x[change] - y[change] * (x[change + 1] - x[change]) / (y[change + 1] - y[change])
