"""How high the energy of hydrogen can lie: an energy per atom, in Ry or in Ha, read as eV of the cell, lies above.

The estimate is the metal whose uniform electrons screen the protons (Thomas and Fermi, linear), which lies about
0.1 Ha below the truth for r_s from 1 to 2. A small cell at one twist may lie far from it, by the
kinetic energy of its few plane waves; where no twist is stated, the highest of all twists counts.
"""

from __future__ import annotations

import numpy as np
from ase import units

from fnqs.periodic.cell import minimum_image_distances, reciprocal_vectors

MARGIN = 0.3
"""Ha per proton; 0.1 for the estimate and the rest for poor methods, Hartree-Fock without correlation among them."""

KINETIC_MARGIN = 0.1
"""Of the kinetic energy, which rules at small r_s and which linear screening overestimates there."""

DILUTE, ATOMS_ENERGY, BOND = 3.0, -0.3, 1.2
"""Above this r_s (bohr), electrons stay with protons: restricted atoms lie at -0.36 Ha, close pairs higher."""


def highest_energy(
    cell: np.ndarray, protons: np.ndarray, twist: np.ndarray | None, temperature: float = 0.0
) -> tuple[float, float]:
    """Highest believable energy, Ha per proton: averaged over many twists, and at the worst or the stated one.

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        protons: (N, 3) Cartesian, bohr.
        twist: (3,) fractions, or None where the file states none.
        temperature: K, of the electrons.
    """
    n_atoms = len(protons)
    density = n_atoms / abs(np.linalg.det(cell))
    radius = (3 / (4 * np.pi * density)) ** (1 / 3)
    distances = _distances(cell, protons)
    kinetic = 1.105 / radius**2
    screening = np.sqrt(4 * (3 * np.pi**2 * density) ** (1 / 3) / np.pi)
    repulsion = 0.5 * np.sum(np.exp(-screening * distances) / distances) / n_atoms
    screened = repulsion - screening / 2 - 2 * np.pi * density / screening**2
    energy = (1 + KINETIC_MARGIN) * kinetic - 0.458 / radius + screened + MARGIN
    energy += 1.5 * units.kB * temperature / units.Hartree
    if radius >= DILUTE:
        close = distances[distances < BOND]
        return (dilute := min(energy, ATOMS_ENERGY + 0.5 * np.sum(1 / close - 1 / BOND) / n_atoms)), dilute
    worst = max(_kinetic_energy(cell, n_atoms, twist) for twist in _twists(twist))
    return energy, energy + max(worst - kinetic, 0.0)


def _distances(cell: np.ndarray, protons: np.ndarray) -> np.ndarray:
    """Distances between all pairs in both orders, bohr, flat; with the images near them where the cell is small."""
    n_atoms = len(protons)
    nearest = minimum_image_distances(cell, protons)
    if n_atoms > 100:
        return nearest[~np.eye(n_atoms, dtype=bool)]
    fractional = (protons[:, None] - protons[None]) @ np.linalg.inv(cell)
    fractional -= np.round(fractional)
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lengths = np.linalg.norm((fractional[:, :, None] + shifts) @ cell, axis=-1).ravel()
    return lengths[lengths > 1e-6]


def _twists(stated: np.ndarray | None) -> np.ndarray:
    """Return the stated twist, or a grid over all."""
    if stated is not None:
        return stated[None]
    return np.stack(np.meshgrid(*[[0.0, 0.25, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)


def _kinetic_energy(cell: np.ndarray, n_atoms: int, twist: np.ndarray) -> float:
    """Kinetic energy of free electrons, Ha per electron, N/2 plane waves doubly occupied."""
    reach = int(np.ceil((3 * n_atoms / (8 * np.pi)) ** (1 / 3))) + 2
    waves = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    squares = np.sum(((waves + twist) @ reciprocal_vectors(cell)) ** 2, axis=1)
    return float(np.mean(np.sort(squares)[: n_atoms // 2]) / 2)
