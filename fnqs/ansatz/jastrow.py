"""The explicit pair factor: exact cusps and learned pair functions on top; many-body terms are the network's."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnqs.ansatz.orbital_basis import CUSP_RATE
from fnqs.ansatz.pair_features import off_diagonal, radial_functions, sum_over_electrons, sum_over_protons
from fnqs.factorisations import cholesky, inverse
from fnqs.laplacian.jet import Field, add, elementwise, linear, product, scale
from fnqs.periodic.smooth_distance import SmoothLattice, squares_over_the_cell

ELECTRON_RATE = 0.8
"""Starting decay rate (1/bohr) of the electron-electron cusp."""

PAIR_RATES = np.geomspace(0.5, 3.0, 6)
"""Decay rates (1/bohr) of the radial functions that pair functions are made of."""

WHITENING_FLOOR = 1e-2
"""Added to the covariance of the radial functions, so that no combination is magnified more than tenfold."""


def whitened_pairs(lattice: SmoothLattice, number: int) -> tuple[jax.Array, jax.Array]:
    """Combine radial functions so that their sums over N independent neighbours have unit covariance.

    A natural gradient with damping learns only directions in which log psi varies enough; sharp functions of
    short distances vary little by themselves. Whitening gives each the same weight, broad ones first.

    Args:
        lattice: of the configuration.
        number: N.

    Returns:
        mean (K,) over the cell and whitening matrix (K, K): functions (f - mean) @ whitening.
    """
    square = squares_over_the_cell(lattice, 16)
    values = radial_functions(jnp.sqrt(square), *_plain(square.dtype))
    mean = jnp.mean(values, axis=0)
    centred = (values - mean).astype(jnp.float64)
    covariance = number * centred.T @ centred / len(values) + WHITENING_FLOOR * jnp.eye(len(PAIR_RATES))
    whitening = inverse(cholesky(covariance)).T
    return mean, whitening.astype(square.dtype)


class PairFactor(nn.Module):
    """log of the pair factor: cusps u' = -1 at a proton, +1/2 at an opposite and +1/4 at an equal spin (Kato 1957)."""

    @nn.compact
    def __call__(
        self,
        electron_distances: Field,
        proton_distances: Field,
        mean: jax.Array,
        electron_coefficients: jax.Array,
        proton_coefficients: jax.Array,
    ) -> Field:
        """Sum over pairs.

        Args:
            electron_distances: (N, N) smooth distances with 1 on the diagonal, bohr (T = 3).
            proton_distances: (N, M) smooth distances, bohr (T = 3).
            mean: (K,) of the radial functions over the cell.
            electron_coefficients: (2, K) of equal and opposite spins.
            proton_coefficients: (M, K) of every proton.

        Returns:
            () the logarithm of the factor (T = 3N).
        """
        start = np.log([CUSP_RATE, ELECTRON_RATE, ELECTRON_RATE])
        rates = jnp.exp(self.param("log_rates", lambda _: jnp.asarray(start, jnp.float32)))
        number = electron_distances.shape[0]
        spin = jnp.arange(number) < number // 2
        same = spin[:, None] == spin[None]
        rate = jnp.where(same, rates[1], rates[2])
        slope = jnp.where(same, 0.25, 0.5).astype(rates.dtype)
        normalisation = (jnp.asarray(PAIR_RATES, rates.dtype), mean, jnp.ones_like(mean))
        by_spin = jnp.where(same[..., None], electron_coefficients[0], electron_coefficients[1])
        between_electrons = add(
            scale(_decay(electron_distances, rate), -0.5 * slope / rate),
            product("ijk,ijk->ij", radial_functions(electron_distances, *normalisation), 0.5 * by_spin),
        )
        with_protons = add(
            scale(_decay(proton_distances, rates[0]), 1 / rates[0]),
            product("imk,mk->im", radial_functions(proton_distances, *normalisation), proton_coefficients),
        )
        per_electron = add(sum_over_electrons(off_diagonal(between_electrons)), sum_over_protons(with_protons))
        return linear(jnp.sum, per_electron)


def _plain(dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rates with no mean and unit size, for `radial_functions`."""
    rates = jnp.asarray(PAIR_RATES, dtype)
    return rates, jnp.zeros_like(rates), jnp.ones_like(rates)


def _decay(distance: Field, rate: jax.Array) -> Field:
    """exp(-rate * distance)."""
    return elementwise(lambda x: jnp.exp(-x), scale(distance, rate))
