"""Molecular crystals: H2 on fcc and hcp lattices with random orientations, and the ordered solids."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from scipy.spatial.transform import Rotation

from fnqs.errors import InputError
from fnqs_data.generate.crystals import LARGEST_SEARCH, compact_supercells, lattice
from fnqs_data.generate.molecular_structures import STRUCTURES, molecules_of

ROTORS = ("fcc-rotors", "hcp-rotors")
MOLECULAR_CRYSTALS = ("pa3", *ROTORS, *STRUCTURES)

FREE_BOND = 1.40
"""Bond length of the free molecule, bohr (Kolos and Wolniewicz, J. Chem. Phys. 49, 404 (1968): 1.4011)."""

SHORTEST_SOLID_BOND = 1.36
SOLID_BOND_RADII = (1.5, 2.3)


def bond_length(r_s: float) -> float:
    """H2 bond length (bohr) in the solid: 1.40 for r_s >= 2.3, falling linearly to 1.36 at r_s <= 1.5.

    A modest rule of ours; calculations of compressed solid hydrogen agree that the bond shortens by a few
    hundredths of a bohr before molecules weaken, and families vary the bond around it anyway.
    """
    return float(np.interp(r_s, SOLID_BOND_RADII, (SHORTEST_SOLID_BOND, FREE_BOND)))


@lru_cache(maxsize=256)
def molecular_lattice(
    phase: str, n_atoms: int, repeats: tuple[int, int, int] | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Cells, molecular centres and axes of a molecular crystal at unit volume per molecule.

    Args:
        phase: one of `MOLECULAR_CRYSTALS`.
        n_atoms: protons N, twice the number of molecules.
        repeats: multiples of the conventional cell, or None for the most compact supercells.

    Returns:
        list of (cell (3, 3), centres (N/2, 3), axes (N/2, 3) or None where orientations are free).

    Raises:
        InputError: if no cell of that phase holds N protons.
    """
    if phase in ROTORS:
        return [(cell, sites, None) for cell, sites in lattice(phase.split("-")[0], n_atoms // 2, repeats)]
    cell, centres, axes = molecules_of(phase, conventional=repeats is not None)
    index, rest = divmod(n_atoms // 2, len(centres))
    if repeats is not None and n_atoms // 2 != np.prod(repeats) * len(centres):
        raise InputError(
            f"supercell {list(repeats)} of {phase} holds {2 * np.prod(repeats) * len(centres)} protons, not {n_atoms}; "
            "change number or supercell"
        )
    if rest or index < 1:
        raise InputError(
            f"no supercell of {phase} holds {n_atoms} protons; its primitive cell has {2 * len(centres)}: "
            "choose a multiple"
        )
    if repeats is None and index > LARGEST_SEARCH:
        raise InputError(f"{phase} with {n_atoms} protons is too large for a search of its cells; give supercell")
    unit = Atoms(numbers=[1] * len(centres), positions=centres, cell=cell, tags=range(len(centres)))
    result = []
    for matrix in compact_supercells(cell, index) if repeats is None else [np.diag(repeats)]:
        atoms = make_supercell(unit, matrix)
        result.append((atoms.cell.array, atoms.positions, axes[atoms.get_tags()]))
    return result


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
