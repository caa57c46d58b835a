"""The momentum distribution of the electrons, from one electron put anywhere in the cell."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sampled_occupations(
    log_psi: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    cell: Float[Array, "3 3"],
    waves: Float[Array, "k 3"],
    electrons: Float[Array, "n 3"],
    key: jax.Array,
) -> Float[Array, " k"]:
    """(N/2) Re[psi(r') / psi(r) exp(-i k s)]: its mean is n(k), the occupation of a wave by one spin, 0 to 1.

    One electron drawn at random is moved by s, uniform in the cell; one evaluation of psi serves every wave. The sum of
    2 n(k) over all waves is N.

    Args:
        log_psi: electrons (N, 3) to the phase of psi and log|psi|.
        cell: lattice vectors as rows, bohr.
        waves: (K, 3) reciprocal vectors, moved by the wave vector of the twist, 1/bohr.
        electrons: (N, 3) bohr.
        key: random key.
    """
    which, where = jax.random.split(key)
    chosen = jax.random.randint(which, (), 0, electrons.shape[0])
    step = jax.random.uniform(where, (3,), electrons.dtype) @ cell
    phase, log = log_psi(electrons)
    other_phase, other_log = log_psi(electrons.at[chosen].add(step))
    ratio = other_phase * jnp.conj(phase) * jnp.exp(other_log - log).astype(phase.dtype)
    angle = waves @ step
    waved = jnp.real(ratio) * jnp.cos(angle) + jnp.imag(ratio) * jnp.sin(angle)
    return 0.5 * electrons.shape[0] * waved
