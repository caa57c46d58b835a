"""Perfect lattices: primitive cells from ASE, and the compact supercells of a wanted number of atoms."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.geometry import minkowski_reduce
from ase.spacegroup import crystal

from fnqs.errors import InputError
from fnqs.periodic.cell import cell_volume

ATOMIC_CRYSTALS = ("bcc", "fcc", "sc", "hcp", "diamond", "beta-tin", "cs-iv")

IDEAL_HCP = float(np.sqrt(8 / 3))
"""c/a of touching spheres."""

BETA_TIN_RATIO = 0.546
"""c/a of white tin."""

CS_IV_RATIO = 2.6
"""c/a of atomic hydrogen in Cs-IV near 500 GPa (McMahon and Ceperley, PRL 106, 165302 (2011))."""

MOST_SUPERCELLS = 4
"""How many shapes of one N are used at most."""

LARGEST_SEARCH = 256
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
        return [_unit_volume(np.array(atoms.cell), atoms.positions)]
    primitive = primitive_cell(phase)
    index, rest = divmod(sites, len(primitive))
    if rest or index < 1:
        raise InputError(
            f"no supercell of {phase} holds {sites} sites; its primitive cell has {len(primitive)}: choose a multiple"
        )
    if index > LARGEST_SEARCH:
        raise InputError(f"{phase} with {sites} sites is too large for a search of its cells; give supercell")
    result = []
    for matrix in compact_supercells(primitive.cell.array, index):
        atoms = make_supercell(primitive, matrix)
        result.append(_unit_volume(np.array(atoms.cell), atoms.positions))
    return result


def compact_supercells(cell: np.ndarray, index: int) -> list[np.ndarray]:
    """Supercells of a primitive cell that come closest to a cube, the most compact first.

    All sublattices of the index are compared by their shortest lattice vector, which is longest for the
    roundest cell.

    Args:
        cell: (3, 3) primitive lattice vectors as rows.
        index: number of primitive cells in the supercell.

    Returns:
        up to `MOST_SUPERCELLS` integer matrices (3, 3) of determinant +-index, each of another shape and with a
        shortest lattice vector of at least `COMPACT` of the longest possible; matrix @ cell is Minkowski-reduced.
    """
    forms = np.stack(hermite_forms(index))
    squares = coset_minima(reduce_cells(forms @ cell))
    compact = np.flatnonzero(squares[:, 0] >= (COMPACT**2 - 1e-9) * squares[:, 0].max())
    _, firsts = np.unique(np.round(squares[compact], 6), axis=0, return_index=True)
    shapes = []
    for form in forms[compact[np.sort(firsts)]]:
        reduced, operation = minkowski_reduce(form @ cell)
        reduced = np.array(reduced)
        gram = np.abs(reduced @ reduced.T)
        entries = np.sort(np.concatenate([np.diag(gram), gram[np.triu_indices(3, 1)]]))
        shapes.append((-round(np.sqrt(np.diag(gram).min()), 6), tuple(np.round(entries, 6)), operation @ form))
    return [matrix for _, _, matrix in sorted(shapes, key=lambda shape: shape[:2])[:MOST_SUPERCELLS]]


def coset_minima(cells: np.ndarray) -> np.ndarray:
    """Squared lengths (B, 7), ascending, that tell lattices of different shape apart; cells (B, 3, 3) are reduced.

    They are the smallest of every class of lattice vectors modulo 2, and the first is the shortest of all
    (J. H. Conway and N. J. A. Sloane, Proc. R. Soc. A 436, 55 (1992): "vonorms").
    """
    signs = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    lengths = np.sum((signs @ cells) ** 2, axis=2)
    classes = np.abs(signs) @ (1, 2, 4)
    return np.sort(np.stack([lengths[:, classes == c].min(axis=1) for c in range(1, 8)], axis=1), axis=1)


def reduce_cells(cells: np.ndarray) -> np.ndarray:
    """Shorten the lattice vectors of many cells (B, 3, 3) at once until they are Minkowski-reduced.

    The greedy algorithm: order by length, subtract from the longest the closest point of the lattice of the
    two others (P. Q. Nguyen and D. Stehle, ACM Trans. Algorithms 5, 46 (2009)).
    """
    cells = np.array(cells, dtype=np.float64)
    steps = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    active = np.arange(len(cells))
    while len(active):
        work = cells[active]
        work = np.take_along_axis(work, np.argsort(np.sum(work**2, axis=2), axis=1, kind="stable")[:, :, None], axis=1)
        before = np.sum(work**2, axis=(1, 2))
        first = np.sum(work[:, 0] * work[:, 1], axis=1) / np.sum(work[:, 0] ** 2, axis=1)
        work[:, 1] -= np.round(first)[:, None] * work[:, 0]
        plane = work[:, :2]
        nearest = np.linalg.solve(plane @ plane.swapaxes(1, 2), plane @ work[:, 2, :, None])[:, :, 0]
        trials = work[:, None, 2] - (np.round(nearest)[:, None] + steps) @ plane
        best = np.argmin(np.sum(trials**2, axis=2), axis=1)
        work[:, 2] = trials[np.arange(len(work)), best]
        cells[active] = work
        # Lengths that no longer shrink by more than rounding have settled.
        active = active[np.sum(work**2, axis=(1, 2)) < before * (1 - 1e-10)]
    return cells


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


def _unit_volume(cell: np.ndarray, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = (len(sites) / abs(cell_volume(cell))) ** (1 / 3)
    return cell * scale, np.asarray(sites) * scale
