"""The proton-centred orbitals and a mean-field Hamiltonian in them, for one configuration.

Orbitals are products of the smooth periodic Gaussian exp(-a s^2) with 1 or the smooth vector, so they
are exactly periodic in any cell. Their overlaps and a fixed, screened one-electron Hamiltonian are
integrated on a uniform grid, on the host in float64, once per configuration: the trapezoidal rule converges
exponentially for smooth periodic functions. The wave function learns corrections to this Hamiltonian;
what stands here only makes an untrained model start near a Slater-Jastrow state.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import k1

from fnqs.ansatz.local_moments import exchange_by_hops, moment_patterns
from fnqs.ansatz.open_shell import (
    MASSES,
    TWIST_TIE,
    OpenShell,
    chemical_potential,
    closed_shells,
    fill_lowest,
    find_last_pair,
    free_electron_fermi_energy,
    tie_between_levels,
)
from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig
from fnqs.periodic.cell import reciprocal_vectors, shortest_wave_vector
from fnqs.periodic.smooth_distance import PAIRS, SmoothLattice, reduced_cell, smooth_lattice

GRID_SPACING = 0.45
"""Largest distance between grid points along a lattice vector (bohr)."""

OVERLAP_FLOOR = 1e-3
"""Added to the overlap matrix of normalised orbitals, so that nearly dependent ones cost no precision."""

REDUNDANT_ENERGY = 20.0
"""Energy (Ha) given to combinations of orbitals that nearly vanish, far above any occupied level."""

CUSP_RATE = 1.5
"""Decay rate (1/bohr) of the electron-proton cusp that the Jastrow factor starts with."""

SCREENING_RATE = 0.6
"""Decay rate (1/bohr) of the screened proton potential."""

ROUNDING = 0.8
"""Length (bohr) over which the potential is rounded at a proton, so that the grid resolves it."""

RETURNED = 0.7
"""Part of the attraction lost by rounding that a Gaussian gives back."""

SMEARING = 0.125
"""Temperature, in Fermi energies, that the chemical potential of the levels belongs to."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OrbitalBasis:
    """Constants of one configuration in its orbital basis of B functions (any leading batch axes).

    Attributes:
        root: (B, B) R = n^-1 S^(1/2), of the regularised overlap matrix S of orbitals normalised by n: R R^T is that
            of the orbitals as they are.
        inverse: (B, B) inverse of R.
        hamiltonian: (B, B) R^-1 H R^-T in Ha, between orbitals made orthogonal symmetrically (Loewdin), each of which
            keeps its proton and its shell; complex at a general twist, and there with a field of some 1e-3 Ha that
            tells degenerate levels apart.
        levels: (B,) ascending eigenvalues of the Hamiltonian relative to the chemical potential, in Fermi energies of
            free electrons.
        vectors: (B, B) its eigenvectors, one a column.
        shell: how its levels are filled; not used at a general twist.
        moments: (PATTERNS, B) patterns of local moments, between -1 and 1, each orbital with that of its proton; None
            where the wave function has none.
        moment_weights: (PATTERNS,) of the patterns, of sum 1.
        wave_vector: (3,) the twist as the shortest wave vector, 1/bohr.
    """

    root: np.ndarray
    inverse: np.ndarray
    hamiltonian: np.ndarray
    levels: np.ndarray
    vectors: np.ndarray
    shell: OpenShell
    wave_vector: np.ndarray
    moments: np.ndarray | None = None
    moment_weights: np.ndarray | None = None


def orbitals_per_proton(config: ModelConfig) -> int:
    """Count the orbitals centred on every proton."""
    return len(config.s_exponents) + 3 * len(config.p_exponents)


def shells(config: ModelConfig) -> np.ndarray:
    """Tell which shell (an s exponent or the three components of a p one) each orbital of a proton belongs to."""
    sizes = [1] * len(config.s_exponents) + [3] * len(config.p_exponents)
    return np.repeat(np.arange(len(sizes)), sizes)


def make_orbital_basis(configuration: Configuration, config: ModelConfig) -> OrbitalBasis:
    """Integrate overlaps and Hamiltonian of one configuration (host, float64)."""
    given, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    wave_vector = shortest_wave_vector(given, np.asarray(configuration.twist))
    cell, lattice = reduced_cell(given), smooth_lattice(given)
    counts = grid_counts(cell)
    values, square = grid_orbitals(lattice, counts, protons, config)
    weight = abs(np.linalg.det(cell)) / len(values)
    overlap = weight * values.T @ values
    norm = 1 / np.sqrt(_shell_means(np.diag(overlap), config))
    scaled = norm[:, None] * norm[None]
    # The potential is negative everywhere; of a matrix and its transpose BLAS computes half the product.
    weighted = np.sqrt(-weight * screened_potential(square))[:, None] * values
    kinetic = _kinetic_energy(cell, lattice, counts, protons, wave_vector, config)
    hamiltonian = kinetic - weighted.T @ weighted
    floor = OVERLAP_FLOOR * np.eye(len(overlap))
    sizes, directions = np.linalg.eigh(scaled * overlap + floor)
    root, inverse = ((directions * sizes**power) @ directions.T for power in (0.5, -0.5))
    projected = inverse @ (scaled * hamiltonian + REDUNDANT_ENERGY * floor) @ inverse
    projected = 0.5 * (projected + projected.conj().T)
    # Fold the normalisation into the factors: the wave function uses unnormalised orbitals.
    inverse = inverse * norm[None]
    pairs = len(protons) // 2
    shell = closed_shells(len(projected), pairs)
    energies, vectors = np.linalg.eigh(projected)
    fermi_energy = free_electron_fermi_energy(cell, pairs)
    moments = moment_weights = None
    if config.antisymmetric == "moments":
        patterns, moment_weights = moment_patterns(
            cell, protons, exchange_by_hops(energies, vectors, len(protons), fermi_energy)
        )
        moments = np.repeat(patterns, orbitals_per_proton(config), axis=1)
    elif not np.iscomplexobj(projected):
        sites = np.repeat(np.arange(len(protons)), orbitals_per_proton(config))
        arguments = energies, inverse.T @ vectors, values, sites, cell, counts
        shell = fill_lowest(*arguments) if config.antisymmetric == "slater" else find_last_pair(*arguments, config.spin)
    else:
        # The determinant of a twist fills the lowest levels: of equal ones those that this field prefers.
        unequal = _kinetic_energy(cell, lattice, counts, protons, wave_vector, config, MASSES)
        unequal = vectors.conj().T @ inverse @ unequal @ inverse.T @ vectors * (TWIST_TIE / fermi_energy)
        tied = projected + vectors @ tie_between_levels(energies, unequal) @ vectors.conj().T
        projected = 0.5 * (tied + tied.conj().T)
    return OrbitalBasis(
        root=root / norm[:, None],
        inverse=inverse,
        hamiltonian=projected,
        levels=(energies - chemical_potential(energies, pairs, SMEARING * fermi_energy)) / fermi_energy,
        vectors=vectors,
        shell=shell,
        wave_vector=wave_vector,
        moments=moments,
        moment_weights=moment_weights,
    )


def _shell_means(values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Average (B,) over the components of each shell, so that no direction is preferred."""
    members = shells(config)
    by_proton = values.reshape(-1, len(members))
    means = np.stack([by_proton[:, members == shell].mean(axis=1) for shell in range(members[-1] + 1)], axis=1)
    return means[:, members].ravel()


def grid_counts(cell: np.ndarray) -> list[int]:
    """Numbers of grid points along the lattice vectors; odd, so that every wave has its opposite."""
    return [max(5, int(np.ceil(np.linalg.norm(vector) / GRID_SPACING)) | 1) for vector in cell]


def grid_orbitals(
    lattice: SmoothLattice, counts: list[int], protons: np.ndarray, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Orbitals (G, B) on the grid along the reduced vectors, ordered by proton; squared distances (G, N), bohr^2."""
    turns, squares, vectors = (np.asarray(part) for part in (lattice.turns, lattice.squares, lattice.vectors))
    number = len(protons)
    phases = []
    for axis, count in enumerate(counts):
        # A phase depends on one coordinate of the grid only: (count, N), then broadcast.
        phase = 2 * np.pi * (np.arange(count)[:, None] / count - protons @ turns[:, axis])
        shape = [1, 1, 1, number]
        shape[axis] = count
        phases.append((np.sin(phase).reshape(shape), np.cos(phase).reshape(shape)))
    waves = [(sine, 1 - cosine) for sine, cosine in phases]
    for first, second in PAIRS:
        (sine, cosine), (other_sine, other_cosine) = phases[first], phases[second]
        waves.append((sine * other_cosine - cosine * other_sine, 1 - cosine * other_cosine - sine * other_sine))
    used = [(*wave, *sizes) for wave, *sizes in zip(waves, squares, vectors, strict=True) if sizes[0] > 0]
    square = sum(even * size for _, even, size, _ in used)
    square = np.asarray(square).reshape(-1, number)
    values = [np.exp(-exponent * square)[..., None] for exponent in config.s_exponents]
    if config.p_exponents:
        vector = np.asarray(sum(odd[..., None] * size for odd, _, _, size in used)).reshape(-1, number, 3)
        values += [vector * np.exp(-exponent * square)[..., None] for exponent in config.p_exponents]
    return np.concatenate(values, -1).reshape(len(square), -1), square


def _kinetic_energy(
    cell: np.ndarray,
    lattice: SmoothLattice,
    counts: list[int],
    protons: np.ndarray,
    wave_vector: np.ndarray,
    config: ModelConfig,
    masses: np.ndarray | None = None,
) -> np.ndarray:
    """Kinetic energy matrix (B, B) in Ha of exp(i q r) u(r), sum over waves k of (k + q)^2/2; real for q = 0.

    With inverse masses m (3, 3), which is for other q, the sum of (k + q) m (k + q)/2. All protons have the same
    orbitals: those at the origin are transformed, and moved by phases.
    """
    waves: list[np.ndarray] = [np.fft.fftfreq(count, 1 / count) for count in counts]
    values, _ = grid_orbitals(lattice, counts, np.zeros((1, 3)), config)
    fields = values.reshape(*counts, -1)
    real = not wave_vector.any()
    if real:
        waves[2] = np.arange(counts[2] // 2 + 1, dtype=np.float64)
        amplitudes = np.fft.rfftn(fields, axes=(0, 1, 2))
    else:
        amplitudes = np.fft.fftn(fields, axes=(0, 1, 2))
    vectors = _grid(waves) @ reciprocal_vectors(cell) + wave_vector
    energies = 0.5 * np.sum(vectors @ (np.eye(3) if masses is None else masses) * vectors, axis=-1)
    if real:
        energies[:, :, 1:] *= 2  # a real transform leaves out the opposite waves
    signs = np.sign(energies).ravel()
    factors = np.sqrt(abs(np.linalg.det(cell) * energies)) / len(values)
    fractional = protons @ np.linalg.inv(cell)
    x, y, z = (np.exp(-2j * np.pi * np.outer(n, s)) for n, s in zip(waves, fractional.T, strict=True))
    moved = (factors[..., None] * x[:, None, None] * y[:, None]) * z
    orbitals = (moved[..., None] * amplitudes[..., None, :]).reshape(-1, len(protons) * fields.shape[-1])
    if not real:
        return orbitals.conj().T @ (orbitals if masses is None else signs[:, None] * orbitals)
    parts = orbitals.view(np.float64).reshape(len(orbitals), -1, 2)
    parts = np.concatenate([parts[..., 0], parts[..., 1]])
    return parts.T @ parts


def _grid(axes: list[np.ndarray]) -> np.ndarray:
    """All triples (n_1, n_2, n_3, 3) of the numbers along three axes."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def screened_potential(square: np.ndarray) -> np.ndarray:
    """Effective potential (Ha) for one electron: screened protons, rounded so that the grid resolves them.

    Rounding takes attraction away where the electron is at a proton, and with it the order of states that differ
    there. A Gaussian gives a part of its integral back; the rest is left to the cusp of the Jastrow factor.

    Args:
        square: (G, N) squared smooth distances of grid points from protons, bohr^2.

    Returns:
        (G,) summed over protons.
    """
    distance = np.sqrt(square + ROUNDING**2)
    taken = 1 / SCREENING_RATE**2 - ROUNDING * k1(SCREENING_RATE * ROUNDING) / SCREENING_RATE
    contact = RETURNED * 4 * np.pi * taken / (np.pi**1.5 * ROUNDING**3)
    return -np.sum(
        np.exp(-SCREENING_RATE * distance) / distance + contact * np.exp(-square / ROUNDING**2),
        axis=1,
    )
