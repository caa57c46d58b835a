"""The last pair of electrons, which may find several levels at the Fermi energy: one form, whatever the gaps.

A Fermi function fills a degenerate shell evenly. Of the states that a pair can make there this is the one whose
electrons meet most often, and since it has the full symmetry of the crystal no symmetric network can turn it into
another. So the last of the N/2 pairs is treated as what it is: two electrons among the levels around the Fermi energy,
with a screened repulsion, beside N/2 - 1 pairs in the Fermi function below; their Hamiltonian is diagonalised on the
host. Nothing decides whether a shell is open: where a gap opens, the repulsion ceases to mix levels and the state
becomes the top level of closed shells; where the shell below is full, the other pairs leave no room but for that.
Levels far from the Fermi energy are held out by a wall that rises smoothly, and the pair is a singlet or a triplet by
construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from fnqs.ansatz.pair_blocking import room_for_a_pair
from fnqs.errors import InputError
from fnqs.model_config import Spin
from fnqs.periodic.cell import reciprocal_vectors

MOST_LEVELS = 24
"""Levels G that the last pair may take, half of them below the Fermi energy (a static shape)."""

REACH = 0.5
"""Of the last pair, in free-electron Fermi energies: its levels lie as near to the middle of the gap, or as near as the
gap is wide."""

NARROWEST = 0.01
"""Of the reach, in the same unit: levels this close to the middle of the gap are never held out."""

HIGHEST_WALL = 100.0
"""What levels far out are raised by at most, in the same unit; their room is gone long before."""

COLDNESS = 100.0
"""Inverse temperature, in Fermi energies, of the pairs below, as the host sees them: the scale on which gaps count."""

LEAST_ROOM = 1e-4
"""Squared norm of a pair state beside the others, relative to the largest, below which it has no room."""

EXCLUDED = 4.0
"""Energy, in Fermi energies, of a state without room."""

SCREENING, SOFTNESS, SHORTEST_WAVE = 0.6, 2.0, 3.2
"""Of the repulsion within the pair: rate of screening, wave number where it ends smoothly, last one (1/bohr)."""

TIE = 1e-4
"""Size (Ha) of a field that chooses among states equal by symmetry: unequal masses in different directions."""

MASSES = np.array([[1.0, 0.23, -0.31], [0.23, 0.4, 0.17], [-0.31, 0.17, -0.3]])
"""Of this field: a quadratic form of the wave vector that no rotation leaves as it is. It is fixed in space, so it does
not depend on the order of the protons, on the vectors of the lattice or on the origin, but on how a crystal lies."""

PARTNERS = 3e-4
"""States that lie no more than about this (Ha) above the lowest feel it; no others do."""

TWIST_TIE, TWIST_PARTNERS = 3e-3, 3e-3
"""The same (Ha) for the levels that a determinant at a twist fills, where one level is chosen and the other left: at a
tenth of it moving protons by 1e-9 bohr changed log|psi| of degenerate crystals by up to 1e-5."""

FREE_ELECTRON_FERMI_ENERGY = 0.5 * (9 * np.pi / 4) ** (2 / 3)
"""Fermi energy of the unpolarised electron gas times r_s^2 (Ha bohr^2)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OpenShell:
    """How the levels of one configuration are filled (any leading batch axes).

    Attributes:
        fillings: (3,) pairs below the last one, levels up to the top of those that it takes, and levels up to the top
            of the virtual ones that are correlated with the pairs below.
        levels: (B, G) the orbitals that the last pair takes, in the unnormalised basis; zero where there are fewer.
        state: (G, G) its amplitudes, up spin along the rows, but for what closed shells have of it.
        closed: () amplitude of the closed shells, whose last pair is spread as the Fermi function has it. Of unit norm
            with `state`.
    """

    fillings: np.ndarray
    levels: np.ndarray
    state: np.ndarray
    closed: np.ndarray


def closed_shells(size: int, pairs: int) -> OpenShell:
    """N/2 pairs in the lowest of B = size levels, and as many virtual levels."""
    fillings = np.array([pairs, pairs, 2.0 * pairs])
    return OpenShell(fillings, np.zeros((size, MOST_LEVELS)), np.zeros((MOST_LEVELS, MOST_LEVELS)), np.array(1.0))


def find_last_pair(
    energies: np.ndarray,
    orbitals: np.ndarray,
    fields: np.ndarray,
    sites: np.ndarray,
    cell: np.ndarray,
    counts: list[int],
    spin: Spin,
) -> OpenShell:
    """Find the lowest state of the last pair.

    Where more than MOST_LEVELS levels are degenerate at the Fermi energy the pair is spread as the Fermi function has
    it.

    Args:
        energies: (B,) ascending levels, Ha.
        orbitals: (B, B) their coefficients in the unnormalised basis, one level a column.
        fields: (P, B) the basis functions on the grid.
        sites: (B,) index of the proton that each basis function sits on.
        cell: (3, 3), bohr.
        counts: numbers of grid points along the lattice vectors.
        spin: of the pair.
    """
    pairs = (int(sites.max()) + 1) // 2
    fermi_energy = free_electron_fermi_energy(cell, pairs)
    centre, wall = _wall(energies, pairs, fermi_energy)
    window = np.flatnonzero(np.isfinite(wall))
    if not 2 <= len(window) <= MOST_LEVELS:
        if spin == "triplet":
            raise InputError(
                f'spin = "triplet": {len(window)} levels at the Fermi energy; the last pair takes 2 to {MOST_LEVELS}'
            )
        return closed_shells(len(energies), pairs)
    below, filled = (occupations(energies, number, COLDNESS / fermi_energy) for number in (pairs - 1, pairs))
    levels = orbitals[:, window]
    waves = fields @ levels
    alone = np.diag(energies[window] - centre + np.minimum(wall[window], HIGHEST_WALL * fermi_energy))
    hamiltonian = _hamiltonian(alone, _repulsion(waves, cell, counts))
    tie = _hamiltonian(_tie(waves, cell, counts), np.zeros(4 * [len(window)]))
    # Behind the wall there is no room either. Without that a filled level there would raise the closed shells, to
    # which a pair in any filled level amounts.
    inside = 1 / (1 + wall[window] / fermi_energy)
    inside = np.multiply.outer(inside, inside).ravel()
    sign = 1 if spin == "singlet" else -1
    basis = _pair_basis(len(window), sign)
    # The amplitudes of the pairs below are the squares of these occupations, see `pairing_matrix`.
    room = room_for_a_pair(below**2, window, pairs - 1) * np.multiply.outer(inside, inside)
    hamiltonian, tie, room = (basis.T @ matrix @ basis for matrix in (hamiltonian, tie, room))
    state = (basis @ _lowest(hamiltonian, tie, room, EXCLUDED * fermi_energy)).reshape(len(window), -1)
    even = np.diag((filled - below)[window])
    even = even / np.linalg.norm(even) if sign == 1 else 0 * even
    closed = np.sum(even * state)
    state, closed = (state, closed) if closed >= 0 else (-state, -closed)
    last = pairs - 1 + 1 / np.sum((state @ state.T) ** 2)  # the number of natural orbitals that count
    shell = closed_shells(len(energies), pairs)
    shell.fillings[:] = pairs - 1, last, min(last + pairs, len(energies))
    shell.levels[:, : len(window)] = levels
    shell.state[: len(window), : len(window)] = state - closed * even
    shell.closed[...] = closed
    return shell


def fill_lowest(
    energies: np.ndarray,
    orbitals: np.ndarray,
    fields: np.ndarray,
    sites: np.ndarray,
    cell: np.ndarray,
    counts: list[int],
) -> OpenShell:
    """Fill the levels of a Slater determinant; of a last shell with too few pairs, those that the tie prefers.

    Arguments as those of `find_last_pair`; the state has all pairs of the last shell.

    Raises:
        InputError: the last shell has more levels than MOST_LEVELS.
    """
    pairs = (int(sites.max()) + 1) // 2
    shell = closed_shells(len(energies), pairs)
    width = 0.03 * free_electron_fermi_energy(cell, pairs)
    closed = np.concatenate([[0], np.flatnonzero(np.diff(energies) > width) + 1, [len(energies)]])
    place = int(np.searchsorted(closed, pairs))
    first, last = int(closed[place - 1]), int(closed[place])
    if last == pairs:
        return shell
    number = last - first
    if number > MOST_LEVELS:
        raise InputError(f"a Slater determinant cannot choose among the {number} levels of its last shell")
    levels = orbitals[:, first:last]
    tie = _tie(fields @ levels, cell, counts)
    _, chosen = np.linalg.eigh(np.diag(energies[first:last]) + tie)
    chosen = chosen[:, : pairs - first]
    shell.fillings[:] = first, last, 2.0 * pairs
    shell.levels[:, :number] = levels
    shell.state[:number, :number] = chosen @ chosen.T
    return shell


def occupations(energies: np.ndarray, filling: int, inverse_temperature: float) -> np.ndarray:
    """Fermi function (B,) of the levels that sums to the filling."""
    if filling == 0:
        return np.zeros_like(energies)
    potential = chemical_potential(energies, filling, 1 / inverse_temperature)
    return expit((potential - energies) * inverse_temperature)


def chemical_potential(energies: np.ndarray, filling: int, temperature: float) -> float:
    """Chemical potential (Ha) at which Fermi functions of the levels sum to the filling, above 0 and below B."""
    margin = 40 * temperature

    def missing(potential: float) -> float:
        return float(np.sum(expit((potential - energies) / temperature)) - filling)

    found: Any = brentq(missing, energies[0] - margin, energies[-1] + margin, xtol=1e-15)
    return float(found)


def free_electron_fermi_energy(cell: np.ndarray, pairs: int) -> float:
    """Fermi energy of as many free electrons, Ha."""
    volume = abs(np.linalg.det(cell))
    return FREE_ELECTRON_FERMI_ENERGY / (3 * volume / (8 * np.pi * pairs)) ** (2 / 3)


def tie_between_levels(energies: np.ndarray, field: np.ndarray, partners: float = TWIST_PARTNERS) -> np.ndarray:
    """Keep of a field (B, B) what tells equal levels (B,) apart: the field between them, less its mean.

    Zero for a level that has no partner within about `partners`, in the unit of the levels. A smooth function of the
    Hamiltonian: it does not depend on how equal levels are combined.
    """
    near = np.exp(-(((energies[:, None] - energies) / partners) ** 2))
    means = near @ np.real(np.diag(field)) / np.sum(near, axis=1)
    return near * field - np.diag(means)


def _wall(energies: np.ndarray, pairs: int, fermi_energy: float) -> tuple[float, np.ndarray]:
    """Middle of the gap (Ha), and what each level is raised by (B,): 0 there, infinite out of reach.

    It is infinite from the first level beyond MOST_LEVELS on, so that none enters with a jump, unless these are as good
    as degenerate.
    """
    half = MOST_LEVELS // 2
    highest, lowest = energies[pairs - 1], energies[min(pairs, len(energies) - 1)]
    centre, limit = 0.5 * (highest + lowest), max(REACH * fermi_energy, lowest - highest)
    above = min(limit, energies[pairs + half] - centre) if len(energies) > pairs + half else limit
    beneath = min(limit, centre - energies[pairs - 1 - half]) if pairs > half else limit
    distance = energies - centre
    narrowest = NARROWEST * fermi_energy  # a shell is not cut
    share = np.where(distance > 0, distance / max(above, narrowest), -distance / max(beneath, narrowest))
    inside = share < 1
    wall = np.full(len(energies), np.inf)
    wall[inside] = fermi_energy * share[inside] ** 4 / (1 - share[inside] ** 2)
    return float(centre), wall


def _repulsion(waves: np.ndarray, cell: np.ndarray, counts: list[int]) -> np.ndarray:
    """Screened repulsion (G, G, G, G), Ha: [i, k, j, l] moves one electron from k to i and the other from l to j."""
    number = waves.shape[1]
    first, second = np.triu_indices(number)
    products = (waves[:, first] * waves[:, second]).reshape(*counts, -1)
    density = np.fft.rfftn(products, axes=(0, 1, 2)).reshape(-1, len(first)) / len(waves)
    numbers = [np.fft.fftfreq(n, 1 / n) for n in counts[:2]] + [np.arange(counts[2] // 2 + 1)]
    grid = np.stack(np.meshgrid(*numbers, indexing="ij"), -1).reshape(-1, 3)
    square = np.sum((grid @ reciprocal_vectors(cell)) ** 2, axis=-1)
    used = np.flatnonzero((square > 0) & (square < SHORTEST_WAVE**2))  # the mean is the same for all states
    factor = 4 * np.pi / (square[used] + SCREENING**2) * np.exp(-((square[used] / SOFTNESS**2) ** 3))
    factor = factor * np.where(grid[used, 2] > 0, 2.0, 1.0) * abs(np.linalg.det(cell))
    part = density[used] * np.sqrt(factor)[:, None]
    pairs = part.real.T @ part.real + part.imag.T @ part.imag
    place = np.zeros((number, number), int)
    place[first, second] = place[second, first] = np.arange(len(first))
    return pairs[place[:, :, None, None], place[None, None]]


def _hamiltonian(alone: np.ndarray, repulsion: np.ndarray) -> np.ndarray:
    """Of two electrons in G levels: (G G, G G), up spin first."""
    number = len(alone)
    unit = np.eye(number)
    moved = repulsion.transpose(0, 2, 1, 3).reshape(number**2, number**2)
    return moved + np.kron(alone, unit) + np.kron(unit, alone)


def _pair_basis(number: int, sign: int) -> np.ndarray:
    """Orthonormal pair states (G G, M) that are even (sign 1) or odd (-1) in the exchange of the two electrons."""
    first, second = np.triu_indices(number, 0 if sign == 1 else 1)
    basis = np.zeros((number, number, len(first)))
    places = np.arange(len(first))
    basis[first, second, places] += 1.0
    basis[second, first, places] += sign
    basis = basis.reshape(number**2, -1)
    return basis / np.linalg.norm(basis, axis=0)


def _lowest(hamiltonian: np.ndarray, tie: np.ndarray, room: np.ndarray, excluded: float) -> np.ndarray:
    """Lowest state (M,) of a Hamiltonian (M, M) where there is room (M, M), and of its partners the tie's choice."""
    sizes, directions = np.linalg.eigh(room)
    sizes = np.maximum(sizes, 0.0) / sizes[-1]
    share = sizes**2 / (sizes**2 + LEAST_ROOM**2)
    allowed = (directions * share) @ directions.T
    kept = allowed @ hamiltonian @ allowed + excluded * (np.eye(len(room)) - allowed)
    energies, states = np.linalg.eigh(0.5 * (kept + kept.T))
    felt = states * np.exp(-(((energies - energies[0]) / PARTNERS) ** 2))
    chosen = np.diag(energies) + felt.T @ tie @ felt
    return states @ np.linalg.eigh(0.5 * (chosen + chosen.T))[1][:, 0]


def _tie(waves: np.ndarray, cell: np.ndarray, counts: list[int]) -> np.ndarray:
    """Matrix (G, G), Ha, of the field that chooses among partners, between levels on the grid (P, G)."""
    amplitudes = np.fft.rfftn(waves.reshape(*counts, -1), axes=(0, 1, 2)) / len(waves)
    numbers = [np.fft.fftfreq(n, 1 / n) for n in counts[:2]] + [np.arange(counts[2] // 2 + 1)]
    vectors = np.stack(np.meshgrid(*numbers, indexing="ij"), -1).reshape(-1, 3) @ reciprocal_vectors(cell)
    factor = np.einsum("kx,xy,ky->k", vectors, MASSES, vectors)
    factor = (factor * np.where(np.broadcast_to(numbers[2] > 0, amplitudes.shape[:3]).ravel(), 2.0, 1.0))[:, None]
    amplitudes = amplitudes.reshape(len(factor), -1)
    tie = np.real(amplitudes.conj().T @ (factor * amplitudes))
    return TIE * tie / max(np.linalg.norm(tie), 1e-12)
