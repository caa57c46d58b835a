"""Where electrons of either spin would gather: the patterns of local moments of one configuration.

In thin cells electrons keep away from each other by sitting on protons of their own. Those of two protons gain energy
by virtual hops between these if their spins are opposite, in proportion to J, the square of the amplitude of a hop. In
a periodic cell the amplitudes of all images of a neighbour add up, with the phases of the twist, before they are
squared. That decides which order there is: in bcc of N = 16 at Gamma moments alternate among the second neighbours, two
images of which add up, and not among the first.

A pattern is the lowest eigenvector of the matrix of J between protons, made of N/2 protons of each kind by a smooth
step. The two lowest eigenvectors may be equally low, and each leave protons without moments (two sublattices that do
not feel each other). Of their superpositions, those count that give all protons moments of about the same size: there
can be two of these, which a translation may turn into each other.

Patterns follow the protons continuously, but where the second and the third eigenvector cross, which symmetry must
allow. Frustrated crystals with three or more equal eigenvectors that a translation turns into each other (bcc and hcp
of 6 and 12 atoms) are left to rounding. Disordered protons may be left without a moment.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from fnqs.ansatz.open_shell import MASSES, chemical_potential, tie_between_levels

PATTERNS = 2
"""Patterns of a configuration; the second has weight 0 where there is only one."""

STEP = 0.5
"""Width of the step that turns the eigenvector, of root mean square 1, into moments between -1 and 1."""

BAND = 0.05
"""Width of the step below which the N lowest levels lie, those between which electrons hop, in Fermi energies."""

FARTHEST, SHORTEST = 14.0, 0.1
"""Distances (bohr) beyond which the field of TIE is rounded away, and below which protons do not come."""

TIE, PARTNERS = 0.03, 0.03
"""Of the field, fixed in space, that chooses among patterns equal by symmetry, and how near in energy these are; both
relative to the largest eigenvalue."""

ALIKE = 1e-9
"""Energy relative to the largest eigenvalue below which superpositions are alike, and the first vector is taken."""

ON_THE_CIRCLE = 1e-4
"""How far from absolute value 1 the root of a polynomial is real within rounding."""

UNEVEN = 0.01
"""What a superposition of the two lowest eigenvectors is raised by if half of the protons have no moments, relative to
the largest eigenvalue. Of two halves of the protons there is one minimum where these are more than four times as far
apart; beyond that it only tilts the lower one."""


def moment_patterns(cell: np.ndarray, protons: np.ndarray, exchange: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments (PATTERNS, N) of the protons, between -1 and 1 and of zero sum, and the patterns' weights, of sum 1.

    The common sign of a pattern has no meaning.

    Args:
        cell: (3, 3) reduced lattice vectors, bohr.
        protons: (N, 3) bohr.
        exchange: (N, N) J between protons, in any unit, from `exchange_by_hops`.
    """
    number, unequal = len(protons), _unequal(cell, protons)
    energies, vectors = np.linalg.eigh(exchange / np.linalg.norm(exchange, 2))
    tie = tie_between_levels(energies, TIE * vectors.T @ unequal @ vectors / np.linalg.norm(unequal, 2), PARTNERS)
    energies, turn = np.linalg.eigh(np.diag(energies) + 0.5 * (tie + tie.T))
    lowest = (vectors @ turn)[:, :PATTERNS] * np.sqrt(number)
    angles, weights = _superpositions(lowest, energies[:PATTERNS])
    mixed = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ lowest.T
    return np.stack([_alternating(vector) for vector in mixed]), weights


def exchange_by_hops(energies: np.ndarray, vectors: np.ndarray, number: int, fermi_energy: float) -> np.ndarray:
    """J between protons (N, N): squares of the hops in the N lowest levels, summed over the orbitals of both; Ha^2.

    Args:
        energies: (B,) levels of H, ascending, Ha.
        vectors: (B, B) eigenvectors, between orthogonal orbitals ordered proton by proton.
        number: N.
        fermi_energy: of free electrons, Ha.
    """
    width = BAND * fermi_energy
    filled = np.ones(number)
    if len(energies) > number:
        filled = expit((chemical_potential(energies, number, width) - energies) / width)
    middle = filled @ energies / number
    hops = (vectors * (filled * (energies - middle))) @ vectors.conj().T
    exchange = np.sum(np.abs(hops.reshape(number, -1, number, len(energies) // number)) ** 2, axis=(1, 3))
    np.fill_diagonal(exchange, 0.0)
    return exchange


def _unequal(cell: np.ndarray, protons: np.ndarray) -> np.ndarray:
    """Give a field between protons (N, N) of the range of a hop that depends on the direction in space."""
    fractions = protons @ np.linalg.inv(cell)
    nearest = fractions[:, None] - fractions
    nearest = (nearest - np.round(nearest)) @ cell
    reach = np.ceil(FARTHEST * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    unequal = np.zeros((len(protons),) * 2)
    for image in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = nearest + np.array(image) @ cell
        distance = np.maximum(np.linalg.norm(vectors, axis=-1), SHORTEST)
        unequal += np.sqrt(distance) * np.exp(-2 * distance) * np.einsum("ijx,xy,ijy->ij", vectors, MASSES, vectors)
    return unequal


def _superpositions(lowest: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles a (PATTERNS,) of cos a v + sin a w that are low and even, and their weights.

    e(a), with what unevenness costs, has two harmonics of 2 a, so one or two minima. The weight of a minimum vanishes
    where it flattens out and is lost.

    Args:
        lowest: (N, 2) v and w as columns, of root mean square 1.
        energies: (2,) of these, relative to the largest eigenvalue.
    """
    samples = 0.2 * np.pi * np.arange(5)
    vectors = np.stack([np.cos(samples), np.sin(samples)], axis=1)
    raised = vectors**2 @ energies + UNEVEN * np.mean((vectors @ lowest.T) ** 4, axis=1)
    first, second = 0.4 * np.fft.fft(raised)[1:3]
    # e(a) = e_0 + Re(first z + second z^2) with z = exp(2 i a), so e'(a) = -2 Im(first z + 2 second z^2).
    if max(abs(first), abs(second)) < ALIKE:
        return np.zeros(PATTERNS), np.eye(PATTERNS)[0]
    roots = np.roots([2 * second, first, 0, -np.conj(first), -2 * np.conj(second)])
    roots = roots[np.abs(np.abs(roots) - 1) < ON_THE_CIRCLE]
    curvatures = -np.real(first * roots + 4 * second * roots**2)
    lowest_first = np.argsort(np.real(first * roots + second * roots**2))
    minima = lowest_first[curvatures[lowest_first] > 0][:PATTERNS]
    if len(minima) == 0:  # a minimum so flat that rounding hides it
        minima, curvatures = lowest_first[:1], np.ones(len(roots))
    angles, weights = np.zeros(PATTERNS), np.zeros(PATTERNS)
    angles[: len(minima)], weights[: len(minima)] = 0.5 * np.angle(roots[minima]), curvatures[minima] ** 2
    return angles, weights / weights.sum()


def _alternating(vector: np.ndarray) -> np.ndarray:
    """Make moments (N,) between -1 and 1 and of zero sum of a vector of root mean square 1."""

    def total(middle: float) -> float:
        return float(np.sum(np.tanh((vector - middle) / STEP)))

    middle: Any = brentq(total, vector.min() - 1, vector.max() + 1, xtol=1e-15)
    return np.tanh((vector - middle) / STEP)
