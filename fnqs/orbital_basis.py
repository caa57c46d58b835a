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

from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig

GRID_SPACING = 0.5
"""Largest distance between grid points along a lattice vector (bohr)."""

OVERLAP_FLOOR = 1e-3
"""Added to the overlap matrix of normalised orbitals, so that nearly dependent ones cost no precision."""

REDUNDANT_ENERGY = 20.0
"""Energy (Ha) given to combinations of orbitals that nearly vanish, far above any occupied level."""

CUSP_RATE = 1.5
"""Decay rate (1/bohr) of the electron-proton cusp that the Jastrow factor starts with."""

SCREENING_RATE = 0.6
"""Decay rate (1/bohr) of the screened proton potential."""

ROUNDING = 0.5
"""Length (bohr) over which the potential is rounded at a proton, so that the grid resolves it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OrbitalBasis:
    """Constants of one configuration in its orbital basis of B functions (any leading batch axes).

    Attributes:
        lower: (B, B) Cholesky factor L of the regularised overlap matrix.
        inverse: (B, B) inverse of L.
        hamiltonian: (B, B) L^-1 H L^-T in Ha; complex at a general twist.
    """

    lower: np.ndarray
    inverse: np.ndarray
    hamiltonian: np.ndarray


def orbitals_per_proton(config: ModelConfig) -> int:
    """Count the orbitals centred on every proton."""
    return len(config.s_exponents) + 3 * len(config.p_exponents)


def shells(config: ModelConfig) -> np.ndarray:
    """Tell which shell (an s exponent or the three components of a p one) each orbital of a proton belongs to."""
    sizes = [1] * len(config.s_exponents) + [3] * len(config.p_exponents)
    return np.repeat(np.arange(len(sizes)), sizes)


def make_orbital_basis(configuration: Configuration, config: ModelConfig) -> OrbitalBasis:
    """Integrate overlaps and Hamiltonian of one configuration (host, float64)."""
    cell, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    grid, weight = _grid(cell)
    values, gradients, square = _orbitals(cell, grid, protons, config)
    overlap = weight * values.T @ values
    norm = 1 / np.sqrt(_shell_means(np.diag(overlap), config))
    scaled = norm[:, None] * norm[None]
    kinetic = 0.5 * weight * sum(gradients[x].T @ gradients[x] for x in range(3))
    potential = weight * values.T @ (_screened_potential(square)[:, None] * values)
    hamiltonian = kinetic + potential
    twist = np.asarray(configuration.twist) @ (2 * np.pi * np.linalg.inv(cell).T)
    if twist.any():
        current = weight * values.T @ np.einsum("x,xgb->gb", twist, gradients)
        hamiltonian = hamiltonian + 0.5 * (twist @ twist) * overlap - 0.5j * (current - current.T)
    floor = OVERLAP_FLOOR * np.eye(len(overlap))
    lower = np.linalg.cholesky(scaled * overlap + floor)
    inverse = np.linalg.inv(lower)
    projected = inverse @ (scaled * hamiltonian + REDUNDANT_ENERGY * floor) @ inverse.T
    # Fold the normalisation into the factors: the wave function uses unnormalised orbitals.
    return OrbitalBasis(
        lower=lower / norm[:, None],
        inverse=inverse * norm[None],
        hamiltonian=0.5 * (projected + projected.conj().T),
    )


def _shell_means(values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Average (B,) over the components of each shell, so that no direction is preferred."""
    members = shells(config)
    by_proton = values.reshape(-1, len(members))
    means = np.stack([by_proton[:, members == shell].mean(axis=1) for shell in range(members[-1] + 1)], axis=1)
    return means[:, members].ravel()


def _grid(cell: np.ndarray) -> tuple[np.ndarray, float]:
    """Uniform grid points (G, 3) in bohr and the volume of each."""
    counts = [max(4, int(np.ceil(np.linalg.norm(vector) / GRID_SPACING))) for vector in cell]
    axes = [np.arange(n) / n for n in counts]
    fractional = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return fractional @ cell, abs(np.linalg.det(cell)) / len(fractional)


def _orbitals(
    cell: np.ndarray, points: np.ndarray, protons: np.ndarray, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orbitals (G, B) at points (G, 3), their gradients (3, G, B) and squared smooth distances (G, N)."""
    inverse = np.linalg.inv(cell)
    phase = 2 * np.pi * (points[:, None] - protons[None]) @ inverse
    sine, cosine = np.sin(phase), np.cos(phase)
    odd, even = sine @ cell / (2 * np.pi), (1 - cosine) @ cell / (2 * np.pi)
    odd_slope = np.einsum("xc,gpc,ca->xgpa", inverse, cosine, cell, optimize=True)
    even_slope = np.einsum("xc,gpc,ca->xgpa", inverse, sine, cell, optimize=True)
    square = np.sum(odd**2, -1) + np.sum(even**2, -1)
    square_slope = 2 * np.sum(odd_slope * odd + even_slope * even, -1)
    values, gradients = [], []
    for exponent in config.s_exponents:
        gauss = np.exp(-exponent * square)
        values.append(gauss[..., None])
        gradients.append((-exponent * square_slope * gauss)[..., None])
    for exponent in config.p_exponents:
        gauss = np.exp(-exponent * square)
        values.append(odd * gauss[..., None])
        gradients.append(odd_slope * gauss[..., None] - exponent * (square_slope * gauss)[..., None] * odd)
    number = len(points)
    return (
        np.concatenate(values, -1).reshape(number, -1),
        np.concatenate(gradients, -1).reshape(3, number, -1),
        square,
    )


def _screened_potential(square: np.ndarray) -> np.ndarray:
    """Effective potential (Ha) for an electron whose Jastrow factor already has the cusp.

    With the factor exp(u), u' = -exp(-b s), the similarity-transformed one-electron problem has the potential
    -(1 - exp(-b s))/s - (b/2) exp(-b s) - exp(-2 b s)/2, finite at the proton; its tail is screened.

    Args:
        square: (G, N) squared smooth distances of grid points from protons, bohr^2.

    Returns:
        (G,) summed over protons.
    """
    distance = np.sqrt(square + ROUNDING**2)
    damping = np.exp(-CUSP_RATE * distance)
    tail = -np.expm1(-CUSP_RATE * distance) / distance * np.exp(-SCREENING_RATE * distance)
    return -np.sum(tail + 0.5 * CUSP_RATE * damping + 0.5 * damping**2, axis=1)
