"""The part of the Jastrow factor that is a function of density waves: isotropic functions summed over all images.

A short-ranged pair function of the true distance, summed over the lattice, is sum_G b(|G|) exp(i G d). Unlike a
function of one smooth distance it has the full angular dependence of a small cell, it is the same function in a
primitive cell and in its supercells, and it costs N waves an electron instead of N particles. With
rho_s(G) = sum_i exp(i G r_i) of spin s and one coefficient for each wave and kind of pair, the factor is

    log f = sum_G [2 Re W(G) rho(G) + a(G) (|rho_up|^2 + |rho_down|^2) + 2 o(G) Re rho_up rho_down^*],

the reciprocal-space Jastrow factor of electron-gas calculations (Ceperley 1978). Its gradient and Laplacian are
written out below; the waves run over half of the reciprocal space.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.configuration import Configuration, wigner_seitz_radius
from fnqs.ewald import shortest_waves
from fnqs.laplacian.jet import Field, Jet
from fnqs.periodic.trigonometry import cos_sin_turns

EXPONENTS = np.geomspace(0.4, 10.0, 6)
"""Exponents of the Gaussians of distance, in 1/r_s^2, that the functions are made of."""

CUTOFF = 6.5
"""Longest wave, in 1/r_s; functions fall to zero smoothly there, so that waves come and go without a jump."""

FLOOR = 1e-3
"""Added to the covariance of the functions relative to its trace, so that nearly dependent ones are not magnified."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WaveLists:
    """Waves of one configuration (any leading batch axes), float64 on the host.

    Attributes:
        vectors: (n_G, 3) half of the shortest reciprocal vectors, 1/bohr.
        functions: (n_G, J) values of the orthonormal functions, divided by N.
    """

    vectors: np.ndarray
    functions: np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WaveFactor:
    """Coefficients of the factor for one configuration.

    Attributes:
        turns: (n_G, 3) reciprocal vectors over 2 pi, 1/bohr.
        protons: (2, n_G) real and imaginary part of W(G).
        equal_spins: (n_G,) a(G).
        opposite_spins: (n_G,) o(G).
    """

    turns: jax.Array
    protons: jax.Array
    equal_spins: jax.Array
    opposite_spins: jax.Array


def number_of_waves(electrons: int) -> int:
    """Waves used for N electrons: all below the cutoff, and a few more for odd cells (static shape)."""
    return int(np.ceil(CUTOFF**3 / (9 * np.pi) * electrons)) + 12


def make_waves(configuration: Configuration, cell: np.ndarray) -> WaveLists:
    """Choose the waves of a configuration on the host; `cell` (3, 3) bohr is its Minkowski-reduced cell."""
    number = np.asarray(configuration.protons).shape[-2]
    length = float(wigner_seitz_radius(configuration))
    waves, following = shortest_waves(cell, number_of_waves(number))
    vectors = waves @ (2 * np.pi * np.linalg.inv(cell).T)
    cutoff = min(CUTOFF, following * length)
    reduced = np.linalg.norm(vectors, axis=1) * length
    return WaveLists(vectors, _gaussians(reduced, cutoff) @ _ORTHONORMAL / number)


def wave_factor(
    lists: WaveLists, protons: jax.Array, proton_coefficients: jax.Array, electron_coefficients: jax.Array
) -> WaveFactor:
    """Combine the coefficients of the functions into those of the waves.

    Args:
        lists: of the configuration.
        protons: (N, 3) bohr.
        proton_coefficients: (N, J) of every proton.
        electron_coefficients: (2, J) of equal and opposite spins.
    """
    dtype = proton_coefficients.dtype
    turns = (jnp.asarray(lists.vectors) / (2 * jnp.pi)).astype(dtype)
    functions = jnp.asarray(lists.functions).astype(dtype)
    cosine, sine = cos_sin_turns(protons @ turns.T)
    weights = proton_coefficients @ functions.T
    structure = jnp.stack([jnp.sum(weights * cosine, axis=0), -jnp.sum(weights * sine, axis=0)])
    return WaveFactor(turns, structure, *(electron_coefficients @ functions.T))


def log_wave_factor(factor: WaveFactor, electrons: jax.Array, derivatives: bool) -> Field:
    """Logarithm of the factor of one walker.

    Args:
        factor: of the configuration.
        electrons: (N, 3) bohr, spin up first.
        derivatives: whether the result is a Jet in the 3N coordinates.
    """
    cosine, sine = cos_sin_turns(electrons @ factor.turns.T)
    half = electrons.shape[0] // 2
    cosines, sines = (jnp.sum(x.reshape(2, half, -1), axis=1) for x in (cosine, sine))
    real, imaginary = 2 * factor.protons[0], -2 * factor.protons[1]
    equal, opposite = factor.equal_spins, factor.opposite_spins
    value = jnp.sum(real * jnp.sum(cosines, axis=0) + imaginary * jnp.sum(sines, axis=0))
    value = value + jnp.sum(equal * jnp.sum(cosines**2 + sines**2, axis=0))
    value = value + jnp.sum(2 * opposite * (cosines[0] * cosines[1] + sines[0] * sines[1]))
    if not derivatives:
        return value
    # Derivative of the factor by the sums of cosines and sines of each spin: (2, n_G).
    by_cosine = real + 2 * (equal * cosines + opposite * cosines[::-1])
    by_sine = imaginary + 2 * (equal * sines + opposite * sines[::-1])
    waves = 2 * jnp.pi * factor.turns
    square = jnp.sum(waves**2, axis=1)
    by_spin = (2, half, -1)
    slope = by_sine[:, None] * cosine.reshape(by_spin) - by_cosine[:, None] * sine.reshape(by_spin)
    gradient = slope.reshape(2 * half, -1) @ waves
    curvature = 4 * half * equal - jnp.sum(by_cosine * cosines + by_sine * sines, axis=0)
    return Jet(value, gradient.reshape(-1), jnp.sum(square * curvature))


def _gaussians(reduced: np.ndarray, cutoff: float) -> np.ndarray:
    """Gaussians (..., K) of reduced wave numbers |G| r_s that fall to zero at a cutoff."""
    fall = np.maximum(1 - (reduced / cutoff) ** 2, 0.0) ** 2
    return fall[..., None] * np.exp(-(reduced[..., None] ** 2) / (4 * EXPONENTS))


def _orthonormal() -> np.ndarray:
    """Make combinations (K, J) of the Gaussians whose sums over N independent electrons have unit covariance.

    The lattice sum over waves is replaced by its integral, so that the functions are the same in every cell.
    """
    wave = (np.arange(400) + 0.5) / 400 * CUTOFF
    values = _gaussians(wave, CUTOFF)
    density = (4 * np.pi / 3) * 4 * np.pi * wave**2 / (2 * np.pi) ** 3 * (wave[1] - wave[0])
    covariance = values.T @ (density[:, None] * values)
    scale = 1 / np.sqrt(np.diag(covariance))
    covariance = scale[:, None] * covariance * scale
    inverse = np.linalg.inv(np.linalg.cholesky(covariance + FLOOR * np.eye(len(covariance))))
    return scale[:, None] * inverse.T


_ORTHONORMAL = _orthonormal()
