"""Disordered configurations by Metropolis sampling of a simple, documented proton-proton interaction.

Protons that are not bonded repel by the Thomas-Fermi screened Coulomb energy exp(-k r) / r with
k^2 = 4 k_F / pi (Ashcroft and Mermin, chapter 17); bonded pairs have the Morse curve of the free molecule
(Huber and Herzberg, Constants of Diatomic Molecules (1979): D_e, omega_e, r_e of H2). This is no accurate
potential of dense hydrogen: it makes a wide, smooth spread of plausible configurations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import units

DISORDERED = ("liquid-atomic", "liquid-molecular", "liquid-mixed")

MORSE_DEPTH = 38297.0 * units.invcm / units.Hartree
MORSE_DISTANCE = 0.74144 / units.Bohr
_FREQUENCY = 4401.21 * units.invcm / units.Hartree
_REDUCED_MASS = 0.5 * 1.00727646688 * units._amu / units._me
MORSE_RATE = _FREQUENCY * np.sqrt(_REDUCED_MASS / (2 * MORSE_DEPTH))

WALL = 5.0
"""Stiffness (Ha/bohr^2) of the wall that keeps protons apart by a little more than the closest distance."""

LONGEST_BOND = 2.2
"""Bonds never grow beyond this (bohr), so that molecules survive the hot start."""

SWEEPS = 60
"""Metropolis sweeps from random places; the first half cools."""

HOT_START = 30.0
"""Temperature of the first sweep in units of the wanted one."""

_CORNERS = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Liquid:
    """Many disordered configurations of one N that are sampled side by side.

    Attributes:
        cells: (B, 3, 3) bohr; angles near 60 or 90 degrees.
        temperatures: (B,) K.
        partners: (B, N) index of the bonded proton, or -1.
        closest: smallest allowed proton distance, bohr.
    """

    cells: np.ndarray
    temperatures: np.ndarray
    partners: np.ndarray
    closest: float


def screening_rate(density_parameter: np.ndarray) -> np.ndarray:
    """Thomas-Fermi screening (1/bohr) of an electron gas with r_s in bohr."""
    fermi = (9 * np.pi / 4) ** (1 / 3) / density_parameter
    return np.sqrt(4 * fermi / np.pi)


def sample(liquid: Liquid, rng: np.random.Generator, sweeps: int = SWEEPS) -> np.ndarray:
    """Protons (B, N, 3) in bohr after Metropolis sweeps from random places.

    The first half of the sweeps cools from 30 times the temperature; step sizes adapt there and then stay.
    """
    cells, partners = liquid.cells, liquid.partners
    batch, number = partners.shape
    inverse = np.linalg.inv(cells)
    density = (3 * np.abs(np.linalg.det(cells)) / (4 * np.pi * number)) ** (1 / 3)
    rate = screening_rate(density)
    protons = _random_places(cells, partners, rng)
    steps = 0.3 * density
    thermal = liquid.temperatures * units.kB / units.Hartree
    for sweep in range(sweeps):
        heat = thermal * max(1.0, HOT_START ** (1 - 2 * sweep / sweeps))
        accepted = np.zeros(batch)
        for i in range(number):
            old = protons[:, i]
            new = old + steps[:, None] * rng.normal(size=(batch, 3))
            before = _proton_energy(old, i, protons, liquid, inverse, rate)
            after = _proton_energy(new, i, protons, liquid, inverse, rate)
            take = rng.random(batch) < np.exp(np.minimum(0.0, (before - after) / heat))
            protons[:, i] = np.where(take[:, None], new, old)
            accepted += take
        if 2 * sweep < sweeps:
            steps = np.clip(steps * np.where(accepted > 0.4 * number, 1.15, 0.87), 0.02, density)
    return protons


def _random_places(cells: np.ndarray, partners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random protons (B, N, 3) in bohr; bonded ones at the free bond length from each other."""
    batch, number = partners.shape
    protons = np.einsum("bni,bij->bnj", rng.random((batch, number, 3)), cells)
    axes = rng.normal(size=(batch, number, 3))
    axes *= MORSE_DISTANCE / np.linalg.norm(axes, axis=-1, keepdims=True)
    first = np.take_along_axis(protons, np.maximum(partners, 0)[..., None], axis=1)
    second = (partners >= 0) & (partners < np.arange(number))
    return np.where(second[..., None], first + axes, protons)


def _proton_energy(
    place: np.ndarray,
    i: int,
    protons: np.ndarray,
    liquid: Liquid,
    inverse: np.ndarray,
    rate: np.ndarray,
) -> np.ndarray:
    """Energy (B,) in Ha of proton i at places (B, 3) among all others and their nearest images."""
    direct = place[:, None] - np.delete(protons, i, axis=1)
    fractional = direct @ inverse
    fractional -= np.floor(fractional)
    images = (fractional @ liquid.cells)[:, :, None] - (_CORNERS @ liquid.cells)[:, None]
    distance = np.sqrt(np.einsum("bjcx,bjcx->bjc", images, images)) + 1e-9
    energy = np.sum(_repulsion(distance, rate[:, None, None], liquid.closest), axis=(1, 2))
    partner = liquid.partners[:, i]
    bonded = partner >= 0
    if bonded.any():
        other = protons[np.arange(len(protons)), np.maximum(partner, 0)]
        bond = np.linalg.norm(place - other, axis=-1) + 1e-9
        morse = MORSE_DEPTH * (1 - np.exp(-MORSE_RATE * (bond - MORSE_DISTANCE))) ** 2
        wall = WALL * np.maximum(0.0, 1.05 * liquid.closest - bond) ** 2
        pair = np.where(bond < LONGEST_BOND, morse + wall - _repulsion(bond, rate, liquid.closest), np.inf)
        energy += np.where(bonded, pair, 0.0)
    return energy


def _repulsion(distance: np.ndarray, rate: np.ndarray, closest: float) -> np.ndarray:
    """Screened Coulomb energy (Ha) with a soft wall at the closest distance."""
    return np.exp(-rate * distance) / distance + WALL * np.maximum(0.0, 1.1 * closest - distance) ** 2
