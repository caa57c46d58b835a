"""What a finite cell misses: leading corrections of potential and kinetic energy, per electron.

From S(k) = b k^2 at small k (Chiesa et al., Phys. Rev. Lett. 97, 076404 (2006); Holzmann et al., Phys. Rev. B 94,
035126 (2016)): the wave k = 0, which a cell leaves out, has the potential energy 2 pi rho b / N, and the long waves of
the Jastrow factor the kinetic energy 1 / (8 N b). They come on top of a twist average, not in its place.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.optimize import least_squares
from scipy.special import erfc

from fnqs.ewald import shortest_waves
from fnqs.periodic.cell import cell_volume, reciprocal_vectors
from fnqs.periodic.smooth_distance import reduced_cell

REACH = 1.5
"""Longest waves, in Fermi wave numbers, that S(k) is fitted to."""

FINE = 4000
"""Reciprocal vectors of the sums here."""


@dataclass(frozen=True)
class FiniteSize:
    """Corrections of E/N, Ha, by one recipe.

    Attributes:
        recipe: where b comes from.
        b: of S(k) = b k^2, bohr^2.
        potential: leading term.
        kinetic: leading term.
        integral_minus_sum: potential energy of the fitted S(k) over all waves minus that over those of the cell; None
            where nothing is fitted.
    """

    recipe: str
    b: float
    potential: float
    kinetic: float
    integral_minus_sum: float | None = None

    @property
    def total(self) -> float:
        """Potential (the integral where there is one) and kinetic correction together."""
        return self.kinetic + (self.potential if self.integral_minus_sum is None else self.integral_minus_sum)


def leading(recipe: str, number: int, volume: float, b: float) -> FiniteSize:
    """Leading corrections of N electrons in a volume (bohr^3) with S(k) = b k^2."""
    return FiniteSize(recipe, b, 2 * math.pi * b / volume, 1 / (8 * number * b))


def random_phase_b(number: int, volume: float) -> float:
    """B of the random-phase approximation, 1 / (2 omega_p), bohr^2; the plasma frequency is (4 pi rho)^(1/2)."""
    return 0.5 / math.sqrt(4 * math.pi * number / volume)


def corrections(
    cell: np.ndarray, number: int, waves: np.ndarray, structure: np.ndarray, errors: np.ndarray
) -> list[FiniteSize]:
    """Corrections by three recipes: the shortest waves, a fit of S(k), and the random-phase approximation.

    Args:
        cell: (3, 3) bohr.
        number: N.
        waves: (G, 3) 1/bohr.
        structure: (G,) the fluctuating S(k).
        errors: (G,) its standard errors.
    """
    volume = abs(float(cell_volume(cell)))
    lengths = np.linalg.norm(waves, axis=1)
    shortest = lengths < lengths.min() * (1 + 1e-6)
    found = [leading("shortest waves", number, volume, float(np.mean(structure[shortest] / lengths[shortest] ** 2)))]
    fermi = (3 * math.pi**2 * number / volume) ** (1 / 3)
    near = lengths < max(REACH * fermi, lengths.min() * 1.5)
    sizes = np.maximum(errors[near], 1e-3)
    fit = None

    def missed(numbers: np.ndarray) -> np.ndarray:
        return (_rise(lengths[near], *numbers) - structure[near]) / sizes

    fitted = least_squares(missed, (max(found[0].b, 1e-5), 1e-5), bounds=([1e-6, 0], np.inf))
    if fitted.success:  # otherwise the other recipes stay
        b, c = map(float, fitted.x)
        fit = leading("fit of S(k)", number, volume, b)
        fit = dataclasses.replace(fit, integral_minus_sum=integral_minus_sum(cell, b, c))
    rpa = leading("random-phase approximation", number, volume, random_phase_b(number, volume))
    return [one for one in (*found, fit, rpa) if one is not None and one.b > 0]


def spread(recipes: list[FiniteSize]) -> tuple[float, float]:
    """Mean of the total corrections of several recipes and half of their range, Ha per electron."""
    totals = [one.total for one in recipes]
    return float(np.mean(totals)), 0.5 * (max(totals) - min(totals))


def integral_minus_sum(cell: np.ndarray, b: float, c: float = 0.0) -> float:
    """Potential energy per electron, Ha, of S(k) = 1 - exp(-b k^2 - c k^4) over all k minus that in the cell.

    The energy in a cell is sum_k v_k (S - 1) / 2 Omega with the Madelung energy of an electron and its images.
    """
    cell = reduced_cell(cell)
    volume = abs(float(cell_volume(cell)))
    half = shortest_waves(cell, FINE)[0] @ reciprocal_vectors(cell)
    square = np.sum(half**2, axis=1)
    summed = 2 * np.sum(4 * math.pi / square * np.exp(-b * square - c * square**2)) / volume
    integral = 2 / math.pi * quad(lambda k: math.exp(-b * k**2 - c * k**4), 0, np.inf)[0]
    return 0.5 * (summed - integral - madelung(cell))


def madelung(cell: np.ndarray) -> float:
    """Energy in Ha of a unit charge with its images and background, times two: -2.837297 / L in a cube."""
    cell = reduced_cell(cell)
    volume = abs(float(cell_volume(cell)))
    splitting = math.sqrt(math.pi) / volume ** (1 / 3)
    waves = shortest_waves(cell, FINE)[0] @ reciprocal_vectors(cell)
    square = np.sum(waves**2, axis=1)
    axes = np.arange(-6, 7)
    images = np.stack(np.meshgrid(axes, axes, axes, indexing="ij"), -1).reshape(-1, 3) @ cell
    distances = np.linalg.norm(images, axis=1)
    distances = distances[distances > 0]
    return float(
        np.sum(erfc(splitting * distances) / distances)
        - 2 * splitting / math.sqrt(math.pi)
        + 2 * np.sum(4 * math.pi / square * np.exp(-square / (4 * splitting**2))) / volume
        - math.pi / (splitting**2 * volume)
    )


def _rise(k: np.ndarray, b: float, c: float) -> np.ndarray:
    return 1 - np.exp(-b * k**2 - c * k**4)
