"""The explicit pair factor: exact cusps with learned ranges. What is longer-ranged comes from the network."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnqs.forward_laplacian import Field, add, elementwise, linear, scale
from fnqs.neighbours import off_diagonal, sum_over_electrons, sum_over_protons
from fnqs.orbital_basis import CUSP_RATE

ELECTRON_RATE = 0.8
"""Starting decay rate (1/bohr) of the electron-electron cusp."""


class CuspFactor(nn.Module):
    """log of exp(u): u' = -1 at a proton, +1/2 at an opposite and +1/4 at an equal spin (Kato 1957)."""

    @nn.compact
    def __call__(self, electron_distances: Field, proton_distances: Field) -> Field:
        """Sum the cusp terms.

        Args:
            electron_distances: (N, N) smooth distances with 1 on the diagonal, bohr (T = 3).
            proton_distances: (N, M) smooth distances, bohr (T = 3).

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
        repulsion = off_diagonal(scale(_decay(electron_distances, rate), -0.5 * slope / rate))
        attraction = scale(_decay(proton_distances, rates[0]), 1 / rates[0])
        per_electron = add(sum_over_electrons(repulsion), sum_over_protons(attraction))
        return linear(jnp.sum, per_electron)


def _decay(distance: Field, rate: jax.Array) -> Field:
    """exp(-rate * distance)."""
    return elementwise(lambda x: jnp.exp(-x), scale(distance, rate))
