"""Metropolis-adjusted Langevin sampling of |psi|^2: all electrons drift along the gradient of log|psi|.

The drift is limited where the gradient is large, near nodes and protons (Umrigar, Nightingale & Runge, J. Chem.
Phys. 99, 2865 (1993)), and the move is accepted with both directions' probabilities, so |psi|^2 is sampled exactly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.walker_axis import WHOLE, WalkerAxis
from fnqs.wavefunction import Context, WaveFunction


def langevin(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    walkers: jax.Array,
    widths: jax.Array,
    key: jax.Array,
    sweeps: int,
    axis: WalkerAxis = WHOLE,
) -> tuple[jax.Array, jax.Array]:
    """Move all electrons of every walker `sweeps` times; arguments and results as `sampling.metropolis`.

    The width is the standard deviation of the diffusion: the drift of a move is width^2 times the gradient.
    """

    def log_and_slope(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(context: Context, r: jax.Array):
            return jax.value_and_grad(lambda r: wavefunction.log_psi(params, context, r)[1])(r)

        return jax.vmap(jax.vmap(one, (None, 0)))(contexts, positions)

    variance = (widths**2).astype(walkers.dtype)[:, None, None, None]

    def drift(slope: jax.Array) -> jax.Array:
        square = variance * jnp.sum(slope**2, axis=-1, keepdims=True)
        return 2 * variance / (1 + jnp.sqrt(1 + 2 * square)) * slope

    def log_proposal(move: jax.Array, slope: jax.Array) -> jax.Array:
        """Logarithm of the density of a move, without its constant."""
        return -jnp.sum((move - drift(slope)) ** 2 / (2 * variance), axis=(2, 3))

    def sweep(state, key):
        positions, log, slope = state
        move_key, accept_key = jax.random.split(key)
        noise = axis.normal(move_key, positions.shape, positions.dtype, 1)
        move = drift(slope) + jnp.sqrt(variance) * noise
        trial = positions + move
        trial_log, trial_slope = log_and_slope(trial)
        ratio = 2 * (trial_log - log) + log_proposal(-move, trial_slope) - log_proposal(move, slope)
        uniform = axis.uniform(accept_key, log.shape, log.dtype, 1)
        accept = jnp.log(uniform) < ratio
        chosen = accept[..., None, None]
        positions = jnp.where(chosen, trial, positions)
        slope = jnp.where(chosen, trial_slope, slope)
        return (positions, jnp.where(accept, trial_log, log), slope), jnp.mean(accept.astype(log.dtype), axis=1)

    (walkers, _, _), accepted = jax.lax.scan(sweep, (walkers, *log_and_slope(walkers)), jax.random.split(key, sweeps))
    return walkers, jnp.mean(accepted, axis=0)
