"""Perfect lattices: primitive cells from ASE, and the compact supercells of a wanted number of atoms."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.geometry import minkowski_reduce
from ase.spacegroup import crystal

from fnqs.cell import cell_volume
from fnqs.errors import InputError

ATOMIC_CRYSTALS = ("bcc", "fcc", "sc", "hcp", "diamond", "beta-tin", "cs-iv")

IDEAL_HCP = float(np.sqrt(8 / 3))
"""c/a of touching spheres."""

BETA_TIN_RATIO = 0.546
"""c/a of white tin."""

CS_IV_RATIO = 2.6
"""c/a of atomic hydrogen in Cs-IV near 500 GPa (McMahon and Ceperley, PRL 106, 165302 (2011))."""

MOST_SUPERCELLS = 4
"""How many shapes of one N are used at most."""

LARGEST_SEARCH = 64
"""Largest multiple of the primitive cell for which all shapes are compared."""

COMPACT = 0.8
"""Smallest accepted ratio of a shape's shortest lattice vector to that of the most compact one."""


def conventional_cell(phase: str) -> Atoms:
    """Conventional cell of an atomic crystal with a = 1 (lengths are scaled later).

    beta-tin and Cs-IV are the same sites 4a of I4_1/amd with c/a below and above that of diamond.
    """
    if phase in ("bcc", "fcc", "sc", "diamond"):
        return bulk("H", phase, a=1.0, cubic=True)
    if phase == "hcp":
        return bulk("H", "hcp", a=1.0, c=IDEAL_HCP)
    ratio = {"beta-tin": BETA_TIN_RATIO, "cs-iv": CS_IV_RATIO}[phase]
    return crystal("H", [(0, 0, 0)], spacegroup=141, cellpar=[1, 1, ratio, 90, 90, 90])


def primitive_cell(phase: str) -> Atoms:
    """Primitive cell of an atomic crystal, in the scale of `conventional_cell`."""
    if phase in ("bcc", "fcc", "sc", "diamond"):
        return bulk("H", phase, a=1.0)
    if phase == "hcp":
        return conventional_cell(phase)
    ratio = {"beta-tin": BETA_TIN_RATIO, "cs-iv": CS_IV_RATIO}[phase]
    return crystal("H", [(0, 0, 0)], spacegroup=141, cellpar=[1, 1, ratio, 90, 90, 90], primitive_cell=True)


@lru_cache(maxsize=256)
def lattice(phase: str, sites: int, repeats: tuple[int, int, int] | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Supercells of a crystal, one atom per site, at unit volume per site, the most compact first.

    Args:
        phase: one of `ATOMIC_CRYSTALS`.
        sites: lattice sites in the cell.
        repeats: multiples of the conventional cell to use instead of a search.

    Returns:
        list of (cell (3, 3), sites (M, 3)); up to four shapes, Minkowski-reduced, each with a shortest
        lattice vector of at least 0.8 of the longest possible.

    Raises:
        InputError: if no supercell has that many sites.
    """
    if repeats is not None:
        atoms = conventional_cell(phase).repeat(repeats)
        if len(atoms) != sites:
            raise InputError(
                f"supercell {list(repeats)} of {phase} holds {len(atoms)} sites, not {sites}; "
                "change number or supercell"
            )
        return [_unit_density(np.array(atoms.cell), atoms.positions)]
    primitive = primitive_cell(phase)
    index, rest = divmod(sites, len(primitive))
    if rest or index < 1:
        raise InputError(
            f"no supercell of {phase} holds {sites} sites; its primitive cell has {len(primitive)}: choose a multiple"
        )
    if index > LARGEST_SEARCH:
        raise InputError(f"{phase} with {sites} sites is too large for a search of its cells; give supercell")
    shapes: dict[tuple, tuple[float, np.ndarray]] = {}
    for form in hermite_forms(index):
        reduced, operation = minkowski_reduce(form @ primitive.cell.array)
        reduced = np.array(reduced)
        lengths = np.linalg.norm(reduced, axis=1)
        gram = np.abs(reduced @ reduced.T)
        key = tuple(np.round(np.sort(np.concatenate([np.diag(gram), gram[np.triu_indices(3, 1)]])), 6))
        shapes.setdefault(key, (float(lengths.min()), operation @ form))
    best = max(shortest for shortest, _ in shapes.values())
    kept = sorted(
        ((key, item) for key, item in shapes.items() if item[0] >= COMPACT * best),
        key=lambda entry: (-round(entry[1][0], 6), entry[0]),
    )
    result = []
    for _, (_, matrix) in kept[:MOST_SUPERCELLS]:
        atoms = make_supercell(primitive, matrix)
        result.append(_unit_density(np.array(atoms.cell), atoms.positions))
    return result


def hermite_forms(index: int) -> list[np.ndarray]:
    """All lower triangular Hermite normal forms of a determinant: every sublattice of that index once."""
    forms = []
    for a in range(1, index + 1):
        if index % a:
            continue
        for b in range(1, index // a + 1):
            if (index // a) % b:
                continue
            c = index // (a * b)
            forms += [np.array([[a, 0, 0], [d, b, 0], [e, f, c]]) for d in range(a) for e in range(a) for f in range(b)]
    return forms


def _unit_density(cell: np.ndarray, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = (len(sites) / abs(cell_volume(cell))) ** (1 / 3)
    return cell * scale, np.asarray(sites) * scale
