"""The last pair of electrons in a degenerate shell: which pairs of levels it takes, and with which signs.

A Fermi function fills a degenerate shell evenly: every level with its own partner, all with the same sign. Of
the states that one pair can make in the shell this is the one whose pairs meet most often, and since it has the full
symmetry of the crystal no symmetric network can turn it into another. So the pair is treated as what it is: two
electrons among G levels, with a screened repulsion, diagonalised exactly on the host. The lowest of these states,
singlets and triplets (spin projection 0) alike, enter the pairing matrix with learned coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from fnqs.errors import InputError
from fnqs.periodic.cell import reciprocal_vectors

MOST_LEVELS = 12
"""Levels G that the last pair may take (a static shape)."""

STATES = 4
"""Pair states K with different energies that the wave function may mix (a static shape)."""

SAME_LEVEL, NEAR_LEVEL = 0.03, 0.15
"""In units of the free-electron Fermi energy: levels this close are one shell; those up to there may join the pair."""

SCREENING = 0.6
"""Of the repulsion within the pair, 1/bohr."""

SAME_STATE = 2e-3
"""Pair states closer than this (Ha) are taken for partners by symmetry; the first of them stands for all."""

TIE = 1e-4
"""Size (Ha) of the field that chooses among partners by symmetry, so that every machine chooses the same."""

FREE_ELECTRON_FERMI_ENERGY = 0.5 * (9 * np.pi / 4) ** (2 / 3)
"""Fermi energy of the unpolarised electron gas times r_s^2 (Ha bohr^2)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OpenShell:
    """How the levels of one configuration are filled (any leading batch axes).

    Attributes:
        fillings: (3,) pairs in closed shells, levels up to the top of the open shell, and levels up to the
            top of the virtual ones that are correlated with the closed shells; without an open shell N/2, N/2 and N.
        levels: (B, G) orbitals of the open shell in the unnormalised basis; zero without one.
        states: (K, G, G) amplitudes of the pair states, lowest first, up spin along the rows; zero where there are
            fewer.
    """

    fillings: np.ndarray
    levels: np.ndarray
    states: np.ndarray


def closed_shells(size: int, pairs: int) -> OpenShell:
    """No open shell among B = size levels: N/2 pairs in the lowest, and as many virtual levels."""
    fillings = np.array([pairs, pairs, 2.0 * pairs])
    return OpenShell(fillings, np.zeros((size, MOST_LEVELS)), np.zeros((STATES, MOST_LEVELS, MOST_LEVELS)))


def fill_lowest(
    energies: np.ndarray, orbitals: np.ndarray, fields: np.ndarray, sites: np.ndarray, cell: np.ndarray
) -> OpenShell:
    """Fill the levels of a Slater determinant; of a last shell with too few pairs, those that the tie field prefers.

    Arguments as those of `find_open_shell`; the first of the states has all pairs of the last shell.

    Raises:
        InputError: the last shell has more levels than MOST_LEVELS.
    """
    pairs = (int(sites.max()) + 1) // 2
    shell = closed_shells(len(energies), pairs)
    first, last = _shell(energies, pairs, SAME_LEVEL * free_electron_fermi_energy(cell, pairs))
    if last == pairs:
        return shell
    number = last - first
    if number > MOST_LEVELS:
        raise InputError(f"a Slater determinant cannot choose among the {number} levels of its last shell")
    levels = orbitals[:, first:last]
    _, chosen = np.linalg.eigh(np.diag(energies[first:last]) + _tie(fields @ levels, fields, sites))
    chosen = chosen[:, : pairs - first]
    shell.fillings[:] = first, last, 2.0 * pairs
    shell.levels[:, :number] = levels
    shell.states[0, :number, :number] = chosen @ chosen.T
    return shell


def find_open_shell(
    energies: np.ndarray,
    orbitals: np.ndarray,
    fields: np.ndarray,
    sites: np.ndarray,
    cell: np.ndarray,
    counts: list[int],
) -> OpenShell | None:
    """Find an open shell that takes one pair, and the pair's states.

    Shells with more pairs, and those of more than MOST_LEVELS, are left to the Fermi function: None.

    Args:
        energies: (B,) ascending levels, Ha.
        orbitals: (B, B) their coefficients in the unnormalised basis, one level a column.
        fields: (G, B) the basis functions on the grid.
        sites: (B,) index of the proton that each basis function sits on.
        cell: (3, 3), bohr.
        counts: numbers of grid points along the lattice vectors.
    """
    pairs = (int(sites.max()) + 1) // 2
    fermi_energy = free_electron_fermi_energy(cell, pairs)
    first, last = _shell(energies, pairs, SAME_LEVEL * fermi_energy)
    if last == pairs or pairs - first != 1 or last - first > MOST_LEVELS:
        return None
    while energies[last] < energies[first] + NEAR_LEVEL * fermi_energy:
        further = _shell(energies, last + 1, SAME_LEVEL * fermi_energy)[1]
        if further - first > MOST_LEVELS:
            break
        last = further
    number = last - first
    shell = closed_shells(len(energies), pairs)
    shell.fillings[:] = first, last, max(2.0 * pairs, last + pairs / 2)
    shell.levels[:, :number] = orbitals[:, first:last]
    found = _pair_states(energies[first:last], shell.levels[:, :number], fields, sites, cell, counts)
    shell.states[: len(found), :number, :number] = found
    return shell


def _shell(energies: np.ndarray, count: int, width: float) -> tuple[int, int]:
    """First and last + 1 of the levels that belong to one shell with level `count` (1 is the lowest)."""
    closed = np.concatenate([[0], np.flatnonzero(np.diff(energies) > width) + 1, [len(energies)]])
    place = int(np.searchsorted(closed, count))
    return int(closed[place - 1]), int(closed[place])


def _pair_states(
    energies: np.ndarray, levels: np.ndarray, fields: np.ndarray, sites: np.ndarray, cell: np.ndarray, counts: list[int]
) -> np.ndarray:
    """Lowest states (K, G, G) of two electrons in G levels, one for each energy."""
    number = len(energies)
    orbitals = fields @ levels
    products = (orbitals[:, :, None] * orbitals[:, None]).reshape(*counts, number**2)
    density = np.fft.fftn(products, axes=(0, 1, 2)).reshape(-1, number**2) / len(fields)
    waves = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in counts), indexing="ij"), -1)
    square = np.sum((waves @ reciprocal_vectors(cell)) ** 2, axis=-1).ravel()
    repulsion = 4 * np.pi / (square + SCREENING**2) * abs(np.linalg.det(cell))
    repulsion[0] = 0.0  # the same for all states
    integrals = np.real(density.conj().T @ (repulsion[:, None] * density)).reshape([number] * 4)
    # Rows and columns are pairs of levels (up, down); integrals[i, k, j, l] moves up from k to i and down from l to j.
    matrix = integrals.transpose(0, 2, 1, 3).reshape(number**2, number**2)
    matrix = matrix + np.diag(np.add.outer(energies, energies).ravel())
    tie = _tie(orbitals, fields, sites)
    matrix = matrix + np.kron(tie, np.eye(number)) + np.kron(np.eye(number), tie)
    # Singlets: T symmetric
    i, j = np.triu_indices(number)
    basis = np.zeros((number, number, len(i)))
    basis[i, j, np.arange(len(i))] += 0.5
    basis[j, i, np.arange(len(i))] += 0.5
    basis = basis.reshape(number**2, -1)
    basis /= np.linalg.norm(basis, axis=0)
    found, vectors = np.linalg.eigh(basis.T @ matrix @ basis)
    vectors = basis @ vectors
    distinct = np.flatnonzero(np.diff(found, prepend=-np.inf) > SAME_STATE)[:STATES]
    states = vectors[:, distinct].T
    # Levels of one energy come in any combination, states with any sign: only the pairs of basis functions do not.
    order = np.arange(len(levels))
    signs = np.einsum(
        "a,ag,kgh,bh,b->k", np.cos(1.0 + 2.3 * order), levels, _square(states), levels, np.cos(1.9 * order)
    )
    return _square(states) * np.sign(signs)[:, None, None]


def _square(states: np.ndarray) -> np.ndarray:
    """(K, G G) to (K, G, G)."""
    number = int(np.sqrt(states.shape[1]))
    return states.reshape(-1, number, number)


def _tie(orbitals: np.ndarray, fields: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Matrix (G, G) among levels (grid, G) of a field that treats no two protons alike, of size TIE."""
    weights = np.cos(1.0 + 2.3 * sites)
    field = np.sum(weights * fields**2, axis=1)
    tie = np.mean(orbitals[:, :, None] * orbitals[:, None] * field[:, None, None], axis=0)
    return TIE * tie / np.linalg.norm(tie)


def free_electron_fermi_energy(cell: np.ndarray, pairs: int) -> float:
    """Fermi energy of as many free electrons, Ha."""
    volume = abs(np.linalg.det(cell))
    return FREE_ELECTRON_FERMI_ENERGY / (3 * volume / (8 * np.pi * pairs)) ** (2 / 3)
