"""Metropolis sampling of |psi|^2 with a step width of its own for every configuration."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.walker_axis import WHOLE, WalkerAxis
from fnqs.wavefunction import Context, WaveFunction

NARROWEST, WIDEST = 0.01, 2.0
"""Limits of the step width (bohr)."""


def metropolis(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    walkers: jax.Array,
    widths: jax.Array,
    key: jax.Array,
    sweeps: int,
    axis: WalkerAxis = WHOLE,
) -> tuple[jax.Array, jax.Array]:
    """Move all electrons of every walker `sweeps` times.

    Args:
        wavefunction: the model.
        params: its parameters.
        contexts: of K configurations, stacked.
        walkers: (K, n, N, 3) bohr, or this device's share of them.
        widths: (K,) standard deviation of a move, bohr.
        key: random key.
        sweeps: number of moves of all electrons together.
        axis: over which the walkers are cut.

    Returns:
        walkers (K, n, N, 3) and the accepted fraction (K,), this device's share of them.
    """

    def log_abs(positions: jax.Array) -> jax.Array:
        per_configuration = jax.vmap(lambda context, r: wavefunction.log_psi(params, context, r)[1], (None, 0))
        return jax.vmap(per_configuration)(contexts, positions)

    def sweep(state, drawn):
        positions, log = state
        key, start = drawn
        move_key, accept_key = jax.random.split(key)
        move = axis.normal(move_key, positions.shape, positions.dtype, 1)
        trial = positions + move * jnp.where(start, 0, widths.astype(positions.dtype))[:, None, None, None]
        trial_log = log_abs(trial)
        uniform = axis.uniform(accept_key, log.shape, log.dtype, 1)
        accept = (jnp.log(uniform) < 2 * (trial_log - log)) | start
        positions = jnp.where(accept[..., None, None], trial, positions)
        return (positions, jnp.where(accept, trial_log, log)), jnp.mean(accept.astype(log.dtype), axis=1)

    # The first pass moves nothing and finds log |psi|: so that the program holds the wave function once, not twice.
    keys = jax.random.split(key, sweeps)
    drawn = (jnp.concatenate([keys[:1], keys]), jnp.arange(sweeps + 1) == 0)
    unknown = jnp.zeros(walkers.shape[:2], walkers.dtype)
    (walkers, _), accepted = jax.lax.scan(sweep, (walkers, unknown), drawn)
    return walkers, jnp.mean(accepted[1:], axis=0)


def adapt_widths(widths: jax.Array, acceptance: jax.Array, target: float) -> jax.Array:
    """Widen steps that are accepted too often and narrow the others, by at most 20 % at a time."""
    factor = jnp.clip(jnp.exp(acceptance.astype(widths.dtype) - target), 1 / 1.2, 1.2)
    return jnp.clip(widths * factor, NARROWEST, WIDEST)


def initial_walkers(protons: jax.Array, key: jax.Array, number: int, spread: float = 0.7) -> jax.Array:
    """Walkers with one electron near each proton, spins alternating between neighbours.

    Protons are paired greedily with their nearest unpaired neighbour (ignoring periodic images, which only
    makes the start a little worse); one of each pair gets spin up.

    Args:
        protons: (N, 3) bohr.
        key: random key.
        number: of walkers.
        spread: standard deviation of an electron around its proton, bohr.

    Returns:
        (number, N, 3) bohr, spin up first.
    """
    count = protons.shape[0]
    separation = jnp.linalg.norm(protons[:, None] - protons[None] + 1e-9, axis=-1)
    separation = jnp.where(jnp.eye(count, dtype=bool), jnp.inf, separation)

    def pair(remaining, _):
        first, second = jnp.unravel_index(jnp.argmin(remaining), remaining.shape)
        taken = jnp.zeros(count, bool).at[jnp.stack([first, second])].set(True)
        remaining = jnp.where(taken[:, None] | taken[None], jnp.inf, remaining)
        return remaining, (first, second)

    _, (up, down) = jax.lax.scan(pair, separation, length=count // 2)
    centres = protons[jnp.concatenate([up, down])]
    noise = jax.random.normal(key, (number, count, 3), protons.dtype)
    return centres[None] + spread * noise
