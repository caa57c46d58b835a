"""Near-duplicates across splits: one structure up to rotation, reflection, translation, permutation and cell.

Two configurations are near-duplicates within a tolerance t if, after a rotation or reflection and another choice of
lattice vectors, their lattice vectors differ by at most t each, and after a translation and a permutation their
protons by at most t (rms). Candidates come from a tree of invariants that move little with the structure, so none is
missed; each is then aligned.

What it does not see: a supercell and its primitive cell (N differs); one molecule or chain turned against its
cell of vacuum. Twists and labels are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from fnqs.errors import InputError
from fnqs_data.store.store import Dataset

LARGEST_TOLERANCE = 0.3
"""bohr; protons further apart than this are not taken for one another."""

RANKS, ATOMS = 16, 4
"""Blocks of neighbours and of protons over which sorted distances are averaged."""

CHUNK = 512
"""Configurations read, or looked up in the tree, at a time."""

_SHIFTS = np.array(list(product((-1, 0, 1), repeat=3)))
_WAVES = np.array([h for h in product((-2, -1, 0, 1, 2), repeat=3) if h > (0, 0, 0)])


@dataclass(frozen=True)
class Duplicate:
    """Two positions in a data set that hold nearly the same structure, and the rms distance (bohr) that remains."""

    first: int
    second: int
    rms: float


def find_duplicates(
    dataset: Dataset, tolerance: float, announce: Callable[[int, int], None] = lambda n_atoms, candidates: None
) -> list[Duplicate]:
    """Find all near-duplicates whose splits differ, the closest first.

    Args:
        dataset: to look through.
        tolerance: t, bohr.
        announce: called with N and the number of candidates before they are aligned.

    Raises:
        InputError: a tolerance that is not above 0 and at most `LARGEST_TOLERANCE`, or a damaged data set.
    """
    if not 0 < tolerance <= LARGEST_TOLERANCE:
        raise InputError(f"the tolerance is {tolerance}; give a length above 0 and up to {LARGEST_TOLERANCE} bohr")
    found = []
    splits = np.array(dataset.splits)
    for n_atoms in np.unique(dataset.n_atoms).tolist():
        members = dataset.where(n_atoms=n_atoms)
        if len(np.unique(splits[members])) == 1:
            continue
        structures = list(_structures(dataset, members))
        surroundings = np.stack([environments(*structure) for structure in structures])
        described = np.stack([invariants(cell, seen) for (cell, _), seen in zip(structures, surroundings, strict=True)])
        pairs = _candidates(described, surroundings, splits[members], tolerance)
        announce(n_atoms, len(pairs))
        for a, b in pairs.tolist():
            (cell, fractional), (other_cell, other) = structures[a], structures[b]
            rms = aligned_rms(cell, fractional, other_cell, other, tolerance)
            if rms is not None:
                found.append(Duplicate(int(members[a]), int(members[b]), rms))
    return sorted(found, key=lambda duplicate: (duplicate.rms, duplicate.first, duplicate.second))


def environments(cell: np.ndarray, fractional: np.ndarray) -> np.ndarray:
    """Distances (N, R) of every proton to the others, ascending, averaged over blocks of neighbours.

    A block of b distances is scaled by sqrt(b / (N - 1)), so that Euclidean distances of rows are at most rms ones
    of the sorted lists; they do not depend on cell, place and order of the others.

    Args:
        cell: (3, 3) Minkowski-reduced lattice vectors as rows, bohr.
        fractional: (N, 3) positions.
    """
    n_atoms = len(fractional)
    first, second = np.triu_indices(n_atoms, 1)
    difference = fractional[first] - fractional[second]
    difference -= np.round(difference)
    squares = np.full(len(first), np.inf)
    for shift in _SHIFTS:
        squares = np.minimum(squares, np.sum(((difference + shift) @ cell) ** 2, axis=1))
    distances = np.zeros((n_atoms, n_atoms))
    distances[first, second] = distances[second, first] = np.sqrt(squares)
    ranked = np.sort(distances, axis=1)[:, 1:]
    blocks = np.array_split(ranked, min(RANKS, n_atoms - 1), axis=1)
    return np.stack([block.mean(axis=1) * np.sqrt(block.shape[1] / (n_atoms - 1)) for block in blocks], axis=1)


def invariants(cell: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
    """Numbers (7 + B,) in bohr that near-duplicates share within `reach`, whatever their cell, place and order.

    The first seven are the shortest lattice vectors of each class modulo 2 (J. H. Conway and N. J. A. Sloane,
    Proc. R. Soc. A 436, 55 (1992)), sorted; the others are the environments, each column sorted and averaged over
    blocks of protons, scaled like them.

    Args:
        cell: (3, 3) Minkowski-reduced lattice vectors as rows, bohr.
        surroundings: (N, R) `environments`.
    """
    lengths = np.linalg.norm(_SHIFTS @ cell, axis=1)
    classes = np.abs(_SHIFTS) @ (1, 2, 4)
    lattice = np.sort([lengths[classes == c].min() for c in range(1, 8)])
    n_atoms = len(surroundings)
    blocks = np.array_split(np.sort(surroundings, axis=0), min(ATOMS, n_atoms))
    means = [block.mean(axis=0) * np.sqrt(len(block) / n_atoms) for block in blocks]
    return np.concatenate([lattice, *means])


def reach(n_atoms: int) -> tuple[float, float]:
    """How far the invariants of near-duplicates of N protons may differ, in tolerances: lattice, distances.

    Sorting brings lists closer, never further apart. Lattice: of the seven vectors three are sums of one basis
    vector, three of two, one of three, and each basis vector moves by 1. Distances: with displacements of rms 1 the
    mean square of |d_i - d_j| over pairs is at most 2 N / (N - 1); the lattice adds |x_1| + |x_2| + |x_3| of
    a shortest vector with fractional coordinates x, at most 1.9 in a hundred thousand trials; 9/4 is taken.
    """
    return float(np.sqrt(3 * 1 + 3 * 4 + 9)), float(np.sqrt(2 * n_atoms / (n_atoms - 1))) + 2.25


def aligned_rms(
    cell: np.ndarray, fractional: np.ndarray, other_cell: np.ndarray, other: np.ndarray, tolerance: float
) -> float | None:
    """Least rms distance (bohr) of the protons of two aligned structures, or None if it exceeds the tolerance.

    Args:
        cell: (3, 3) Minkowski-reduced lattice vectors as rows, bohr.
        fractional: (N, 3) positions in it.
        other_cell: (3, 3) those of the other structure.
        other: (N, 3) positions in it.
        tolerance: bohr, for the lattice vectors as well.
    """
    n_atoms, best = len(fractional), np.inf
    # A proton displaced by d changes a Fourier component by |G . d| at most, N of rms t by N |G| t together, and a
    # translation does not change its modulus: that settles most orientations without trying translations.
    waves = 2 * np.pi * np.linalg.norm(_WAVES @ np.linalg.inv(cell).T, axis=1)
    moduli = _moduli(fractional)
    for basis in _matching_bases(cell, other_cell, tolerance):
        turned = other @ np.linalg.inv(basis)
        if np.any(np.abs(_moduli(turned) - moduli) > n_atoms * waves * tolerance):
            continue
        # Fewer than N / 9 protons are displaced by more than 3 rms, so one of these anchors is not; with it in
        # place the mean square is at most (1 + 9) rms^2.
        limit = 10 * n_atoms * tolerance**2
        for anchor in range(n_atoms // 9 + 1):
            offsets = fractional[anchor] - turned
            for offset in offsets[_nearest_sum(fractional[:12], turned, offsets, cell) <= limit]:
                best = min(best, _settled_rms(fractional, turned, offset, cell))
    return best if best <= tolerance else None


def _structures(dataset: Dataset, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield reduced cells with fractional positions."""
    for start in range(0, len(members), CHUNK):
        batch = dataset.configurations(members[start : start + CHUNK])
        for cell, protons in zip(np.asarray(batch.cell), np.asarray(batch.protons), strict=True):
            reduced = np.asarray(minkowski_reduce(cell)[0])
            yield reduced, protons @ np.linalg.inv(reduced)


def _candidates(described: np.ndarray, surroundings: np.ndarray, splits: np.ndarray, tolerance: float) -> np.ndarray:
    """Pairs (C, 2) of places whose splits differ and whose invariants and environments are within reach."""
    lattice, distances = (tolerance * bound for bound in reach(surroundings.shape[1]))
    names = np.unique(splits)
    places = {name: np.flatnonzero(splits == name) for name in names}
    trees = {name: KDTree(described[places[name]]) for name in names}
    found = [np.empty((0, 2), dtype=np.int64)]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            few, many = sorted((one, other), key=lambda name: len(places[name]))
            for start in range(0, len(places[few]), CHUNK):
                asked = places[few][start : start + CHUNK]
                near = trees[many].query_ball_point(described[asked], float(np.hypot(lattice, distances)))
                a = np.repeat(asked, [len(hits) for hits in near])
                b = places[many][np.concatenate([np.asarray(hits, dtype=np.int64) for hits in near])]
                apart = described[a] - described[b]
                close = np.linalg.norm(apart[:, :7], axis=1) <= lattice
                close &= np.linalg.norm(apart[:, 7:], axis=1) <= distances
                pairs = np.sort(np.stack([a, b], axis=1)[close], axis=1)
                for part in np.array_split(pairs, len(pairs) // CHUNK + 1):
                    found.append(part[_unmatched(surroundings[part[:, 0]], surroundings[part[:, 1]]) <= distances])
    return np.concatenate(found)


def _unmatched(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Least rms distance (P,) of environments (P, N, R) from those of other structures, whatever the permutation."""
    products = some @ others.swapaxes(1, 2)
    squares = np.sum(some**2, axis=2)[:, :, None] + np.sum(others**2, axis=2)[:, None] - 2 * products
    # Rounding may leave -1e-14 where environments agree.
    nearest = np.maximum(squares, 0).min(axis=2).mean(axis=1)
    return np.sqrt(nearest)


def _matching_bases(cell: np.ndarray, other: np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """Yield integer matrices (3, 3) for which a rotation or reflection of matrix @ other is within tolerance of cell.

    The basis vectors of a reduced cell have coordinates -1, 0 and 1 in any other reduced cell of its lattice.
    """
    vectors = _SHIFTS @ other
    lengths = np.linalg.norm(vectors, axis=1)
    rows = [np.flatnonzero(np.abs(lengths - np.linalg.norm(a)) <= tolerance) for a in cell]
    triples = np.array(list(product(*rows)), dtype=np.int64).reshape(-1, 3)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        found = np.linalg.norm(vectors[triples[:, i]] - vectors[triples[:, j]], axis=1)
        triples = triples[np.abs(found - np.linalg.norm(cell[i] - cell[j])) <= 2 * tolerance]
    for triple in triples:
        basis = _SHIFTS[triple]
        if abs(round(float(np.linalg.det(basis)))) != 1:
            continue
        u, _, v = np.linalg.svd(vectors[triple].T @ cell)
        if np.linalg.norm(vectors[triple] @ u @ v - cell, axis=1).max() <= tolerance:
            yield basis


def _moduli(fractional: np.ndarray) -> np.ndarray:
    """Return |sum_i exp(2 pi i h . f_i)| for the h of `_WAVES`."""
    return np.abs(np.exp(2j * np.pi * (fractional @ _WAVES.T)).sum(axis=0))


def _nearest_sum(some: np.ndarray, turned: np.ndarray, offsets: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Sum over some protons of the squared distance to the nearest of the others, for every offset (O,)."""
    difference = some[None, :, None] - turned[None, None] - offsets[:, None, None]
    difference -= np.round(difference)
    return np.sum((difference @ cell) ** 2, axis=-1).min(axis=2).sum(axis=1)


def _settled_rms(fractional: np.ndarray, turned: np.ndarray, offset: np.ndarray, cell: np.ndarray) -> float:
    """Rms distance (bohr) after the best permutation and translation near an offset."""
    rows, previous = np.arange(len(fractional)), None
    while True:
        difference = fractional[:, None] - turned[None] - offset
        difference = (difference - np.round(difference)) @ cell
        columns = linear_sum_assignment(np.sum(difference**2, axis=-1))[1]
        matched = difference[rows, columns]
        mean = matched.mean(axis=0)
        rms = float(np.sqrt(np.mean(np.sum((matched - mean) ** 2, axis=1))))
        # Each round lowers the rms or changes nothing, so this ends.
        if previous is not None and rms >= previous - 1e-12:
            return min(rms, previous)
        previous, offset = rms, offset + mean @ np.linalg.inv(cell)
