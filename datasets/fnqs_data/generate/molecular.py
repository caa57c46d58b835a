"""Molecular crystals: H2 on fcc and hcp lattices with random orientations, and the ordered Pa-3 solid."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from fnqs_data.generate.crystals import lattice

MOLECULAR_CRYSTALS = ("pa3", "fcc-rotors", "hcp-rotors")

FREE_BOND = 1.40
"""Bond length of the free molecule, bohr (Kolos and Wolniewicz, J. Chem. Phys. 49, 404 (1968): 1.4011)."""

SHORTEST_SOLID_BOND = 1.36
BOND_DENSITIES = (1.5, 2.3)

PA3_AXES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
"""Molecular axes of Pa-3 on the sites (0,0,0), (0,1/2,1/2), (1/2,1/2,0), (1/2,0,1/2)."""


def bond_length(density_parameter: float) -> float:
    """H2 bond length (bohr) in the solid: 1.40 for r_s >= 2.3, falling linearly to 1.36 at r_s <= 1.5.

    A modest rule of ours; calculations of compressed solid hydrogen agree that the bond shortens by a few
    hundredths of a bohr before molecules weaken, and families vary the bond around it anyway.
    """
    return float(np.interp(density_parameter, BOND_DENSITIES, (SHORTEST_SOLID_BOND, FREE_BOND)))


def molecular_lattice(
    phase: str, number: int, repeats: tuple[int, int, int] | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Cells, molecular centres and axes of a molecular crystal at unit volume per molecule.

    Args:
        phase: one of `MOLECULAR_CRYSTALS`.
        number: protons N, twice the number of molecules.
        repeats: multiples of the conventional cell, or None for the most compact supercells.

    Returns:
        list of (cell (3, 3), centres (N/2, 3), axes (N/2, 3) or None where orientations are free).

    Raises:
        InputError: if no cell of that phase holds N protons.
    """
    if phase != "pa3":
        return [(cell, sites, None) for cell, sites in lattice(phase.split("-")[0], number // 2, repeats)]
    if repeats is None:
        edge = round((number / 8) ** (1 / 3))
        repeats = (edge, edge, edge)
    ((cell, sites),) = lattice("fcc", number // 2, repeats)
    half_steps = np.round(2 * sites @ np.linalg.inv(cell) * repeats).astype(int) % 2
    return [(cell, sites, PA3_AXES[half_steps @ (0, 2, 1)])]


def place_molecules(
    centres: np.ndarray,
    axes: np.ndarray | None,
    bonds: np.ndarray,
    libration: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Protons (2M, 3) of molecules with centres (M, 3), axes (M, 3) or random ones, and bonds (M,), bohr.

    Axes that are given are tilted by random angles of the rms size `libration` (radians).
    """
    if axes is None:
        axes = rng.normal(size=centres.shape)
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    else:
        tilt = rng.normal(scale=libration / np.sqrt(3), size=centres.shape)
        axes = Rotation.from_rotvec(tilt).apply(axes)
    half = 0.5 * bonds[:, None] * np.asarray(axes)
    return np.stack([centres + half, centres - half], axis=1).reshape(-1, 3)
