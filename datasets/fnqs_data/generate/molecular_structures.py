"""The ordered molecular crystals: their Wyckoff sites, and from these the centres and axes of the molecules.

C2/c-24 has the relaxed cell and sites of the layered candidate for phase III (C. J. Pickard and R. J. Needs,
Nature Physics 3, 473 (2007)) near r_s = 1.57, as distributed with the tests of CellConstructor (L. Monacelli et
al., J. Phys.: Condens. Matter 33, 363001 (2021)).

The published coordinates of Cmca-4, Cmca-12 and P6_3/m (same paper, supplement) were not at hand. Their space
group and the atoms of their primitive cell are those of the paper; everything else here is our construction:
molecules on (distorted) close-packed lattices on the Wyckoff sites named below, with axial ratios, positions and
tilts that minimise the screened repulsion of `disordered` between molecules at r_s = 1.45. They are crystals of
that symmetry and topology, not the relaxed ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase.geometry import find_mic
from ase.spacegroup import crystal

from fnqs.periodic.cell import cell_volume
from fnqs_data.generate.crystals import lattice


@dataclass(frozen=True)
class Structure:
    """An ordered molecular crystal as its space group says it.

    Attributes:
        group: number of the space group in the International Tables, standard setting.
        cell: a, b, c in units of a and alpha, beta, gamma in degrees.
        sites: fractional positions of the independent protons.
    """

    group: int
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[tuple[float, float, float], ...]


STRUCTURES = {
    # Four atoms on 8f: a face-centred lattice of molecules that lie in the planes normal to a, tilted in turn.
    "cmca-4": Structure(64, (1, 0.782, 1.227, 90, 90, 90), ((0, 0.1202, 0.0895),)),
    # Twelve atoms on 8f and 16g: layers normal to c, two molecules of three along a, the third normal to it.
    "cmca-12": Structure(64, (1, 1.595, 0.850, 90, 90, 90), ((0, 0.0544, 0.0842), (0.1124, 0.3445, 0.0458))),
    # 24 atoms on six sites 8f: four layers normal to c, three molecules each.
    "c2c-24": Structure(
        15,
        (1, 1.731954, 1.813481, 90, 90.01125, 90),
        (
            (0.590764, 0.931722, 0.875287),
            (0.718468, 0.030965, 0.874590),
            (0.689317, 0.292999, 0.883378),
            (0.096386, 0.904748, 0.878939),
            (0.596485, 0.677862, 0.866581),
            (0.309152, 0.160813, 0.871236),
        ),
    ),
    # 16 atoms on 6h, 6h and 4f: of four molecules in a hexagonal layer three lie in it and one stands upright.
    "p63m-16": Structure(
        176,
        (1, 1, 0.769, 90, 90, 120),
        ((0.7988, 0.7354, 0.25), (0.9149, 0.6169, 0.25), (1 / 3, 2 / 3, 0.3821)),
    ),
}

PA3_AXES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
"""Molecular axes of Pa-3 on the sites (0,0,0), (0,1/2,1/2), (1/2,1/2,0), (1/2,0,1/2)."""


@lru_cache(maxsize=16)
def molecules_of(phase: str, conventional: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, molecular centres and axes of an ordered molecular crystal at unit volume per molecule.

    Args:
        phase: "pa3" or a key of `STRUCTURES`.
        conventional: the conventional cell instead of the primitive one.

    Returns:
        cell (3, 3), centres (M, 3), axes (M, 3) of unit length.
    """
    if phase == "pa3":
        ((cell, sites),) = lattice("fcc", 4, (1, 1, 1))
        half_steps = np.round(2 * sites @ np.linalg.inv(cell)).astype(int) % 2
        return cell, sites, PA3_AXES[half_steps @ (0, 2, 1)]
    structure = STRUCTURES[phase]
    atoms = crystal(
        ["H"] * len(structure.sites),
        structure.sites,
        spacegroup=structure.group,
        cellpar=structure.cell,
        primitive_cell=not conventional,
    )
    cell, protons = atoms.cell.array, atoms.positions
    vectors = protons[None] - protons[:, None]
    shortest, lengths = find_mic(vectors.reshape(-1, 3), cell)
    lengths = lengths.reshape(len(atoms), len(atoms))
    np.fill_diagonal(lengths, np.inf)
    partner = lengths.argmin(axis=1)
    first = np.flatnonzero(partner > np.arange(len(atoms)))
    bonds = shortest.reshape(len(atoms), len(atoms), 3)[first, partner[first]]
    scale = (len(first) / abs(cell_volume(cell))) ** (1 / 3)
    centres = protons[first] + bonds / 2
    return cell * scale, centres * scale, bonds / np.linalg.norm(bonds, axis=1, keepdims=True)
