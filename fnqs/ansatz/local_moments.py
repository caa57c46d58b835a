"""Where electrons of either spin would gather: the pattern of local moments of one configuration.

In thin cells electrons keep away from each other by sitting on protons of their own, spins up and down alternating.
Neighbours take opposite spins, since two hydrogen atoms at a distance R gain the exchange energy J = 1.64 R^(5/2)
exp(-2 R) (Herring and Flicker, Phys. Rev. 134, A362 (1964)). The pattern is the lowest eigenvector of the matrix of J
between protons, made of N/2 protons of each kind by a smooth step, so it changes smoothly with the protons.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy.optimize import brentq

from fnqs.ansatz.open_shell import MASSES, tie_between_levels

STEP = 0.5
"""Width of the step that turns the eigenvector, of root mean square 1, into moments between -1 and 1."""

FARTHEST, SHORTEST = 14.0, 0.1
"""Distances (bohr) beyond which J is rounded away, and below which protons do not come."""

TIE, PARTNERS = 0.03, 0.03
"""Of the field, fixed in space, that chooses among patterns equal by symmetry, and how near in energy these are; both
relative to the largest eigenvalue."""


def moment_pattern(cell: np.ndarray, protons: np.ndarray) -> np.ndarray:
    """Moments (N,) of the protons, between -1 and 1, of zero sum; their common sign has no meaning.

    Args:
        cell: (3, 3) reduced lattice vectors, bohr.
        protons: (N, 3) bohr.
    """
    number = len(protons)
    fractions = protons @ np.linalg.inv(cell)
    nearest = fractions[:, None] - fractions
    nearest = (nearest - np.round(nearest)) @ cell
    reach = np.ceil(FARTHEST * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    exchange, unequal = np.zeros((2, number, number))
    for image in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = nearest + np.array(image) @ cell
        distance = np.maximum(np.linalg.norm(vectors, axis=-1), SHORTEST)
        strength = distance**2.5 * np.exp(-2 * distance)
        exchange += strength
        unequal += strength * np.einsum("ijx,xy,ijy->ij", vectors, MASSES, vectors) / distance**2
    size = np.linalg.norm(exchange, 2)
    energies, patterns = np.linalg.eigh(exchange / size)
    tie = tie_between_levels(energies, TIE * patterns.T @ unequal @ patterns / size, PARTNERS)
    vector = patterns @ np.linalg.eigh(np.diag(energies) + 0.5 * (tie + tie.T))[1][:, 0] * np.sqrt(number)

    def total(middle: float) -> float:
        return float(np.sum(np.tanh((vector - middle) / STEP)))

    middle: Any = brentq(total, vector.min() - 1, vector.max() + 1, xtol=1e-15)
    return np.tanh((vector - middle) / STEP)
