"""Metropolis sampling of |psi|^2 with a step width of its own for every configuration."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fnqs.walker_axis import WHOLE, WalkerAxis
from fnqs.wavefunction import Context, WaveFunction

NARROWEST, WIDEST = 0.01, 2.0
"""Limits of the step width (bohr)."""

FIRST_WIDTH = 0.75
"""Step width (bohr) of a single electron to begin with; that of N moved together is shorter by the root of N."""

CHARGED = 0.4
"""Part of the pairs of neighbouring protons that have both their electrons near one of them to begin with; in sc,
N = 8, r_s = 2.7 the mean square of the charges is as large in equilibrium."""

Propose = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""propose(turn, key, positions (K, n, N, 3)) -> trial positions, log of the ratio of the probabilities of the way back
and the way there (K, n), and () whether its acceptance is counted."""


def metropolis(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    walkers: jax.Array,
    widths: jax.Array,
    key: jax.Array,
    sweeps: int | jax.Array,
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
        sweeps: number of moves of all electrons together; it may be traced.
        axis: over which the walkers are cut.

    Returns:
        walkers (K, n, N, 3) and the accepted fraction (K,), this device's share of them.
    """

    def propose(turn: jax.Array, key: jax.Array, positions: jax.Array):
        del turn
        trial = moved(positions, widths, key, axis)
        return trial, jnp.zeros(positions.shape[:2], positions.dtype), jnp.asarray(True)

    return chain(wavefunction, params, contexts, propose, walkers, key, sweeps, axis)


def moved(positions: jax.Array, widths: jax.Array, key: jax.Array, axis: WalkerAxis = WHOLE) -> jax.Array:
    """Move all electrons (K, n, N, 3) by normal numbers with standard deviations widths (K,), all in bohr."""
    move = axis.normal(key, positions.shape, positions.dtype, 1)
    return positions + move * widths.astype(positions.dtype)[:, None, None, None]


def chain(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    propose: Propose,
    walkers: jax.Array,
    key: jax.Array,
    sweeps: int | jax.Array,
    axis: WalkerAxis = WHOLE,
) -> tuple[jax.Array, jax.Array]:
    """Take proposals by the rule of Metropolis and Hastings; one costs one log psi of every walker.

    Arguments and results are those of `metropolis` but for the widths: `propose` says what is proposed in each of the
    `sweeps` turns. Every kind of turn obeys detailed balance by itself, so any sequence of them leaves |psi|^2 as it
    is. The accepted fraction is that of the turns that are counted.
    """

    def log_abs(positions: jax.Array) -> jax.Array:
        per_configuration = jax.vmap(lambda context, r: wavefunction.log_psi(params, context, r)[1], (None, 0))
        return jax.vmap(per_configuration)(contexts, positions)

    def turn(index: jax.Array, state):
        positions, log, accepted, count = state
        start = index == 0
        move_key, accept_key = jax.random.split(jax.random.fold_in(key, index))
        trial, log_proposals, counted = propose(index - 1, move_key, positions)
        trial = jnp.where(start, positions, trial)
        trial_log = log_abs(trial)
        uniform = axis.uniform(accept_key, log.shape, log.dtype, 1)
        accept = (jnp.log(uniform) < 2 * (trial_log - log) + log_proposals) | start
        positions = jnp.where(accept[..., None, None], trial, positions)
        share = (counted & ~start).astype(log.dtype)
        accepted = accepted + share * jnp.mean(accept.astype(log.dtype), axis=1)
        return positions, jnp.where(accept, trial_log, log), accepted, count + share

    # The first turn moves nothing and finds log |psi|: so that the program holds the wave function once, not twice.
    unknown = jnp.zeros(walkers.shape[:2], walkers.dtype)
    none = jnp.zeros(walkers.shape[:1], walkers.dtype)
    state = (walkers, unknown, none, jnp.zeros((), walkers.dtype))
    walkers, _, accepted, count = jax.lax.fori_loop(0, sweeps + 1, turn, state)
    return walkers, accepted / jnp.maximum(count, 1)


def adapt_widths(widths: jax.Array, acceptance: jax.Array, target: float) -> jax.Array:
    """Widen steps that are accepted too often and narrow the others, by at most 20 % at a time."""
    factor = jnp.clip(jnp.exp(acceptance.astype(widths.dtype) - target), 1 / 1.2, 1.2)
    return jnp.clip(widths * factor, NARROWEST, WIDEST)


def paired(protons: jax.Array) -> jax.Array:
    """Order protons (N, 3) so that i and i + N/2 are neighbours.

    They are paired greedily, each with its nearest unpaired neighbour (ignoring periodic images, which only makes the
    start of the walkers a little worse).
    """
    count = protons.shape[0]
    separation = jnp.linalg.norm(protons[:, None] - protons[None] + 1e-9, axis=-1)
    separation = jnp.where(jnp.eye(count, dtype=bool), jnp.inf, separation)

    def pair(remaining, _):
        first, second = jnp.unravel_index(jnp.argmin(remaining), remaining.shape)
        taken = jnp.zeros(count, bool).at[jnp.stack([first, second])].set(True)
        remaining = jnp.where(taken[:, None] | taken[None], jnp.inf, remaining)
        return remaining, (first, second)

    _, (first, second) = jax.lax.scan(pair, separation, length=count // 2)
    return protons[jnp.concatenate([first, second])]


def initial_walkers(protons: jax.Array, key: jax.Array, number: int, spread: float = 0.7) -> jax.Array:
    """Walkers with one electron near each proton, spins alternating between neighbours.

    Args:
        protons: (N, 3) bohr.
        key: random key.
        number: of walkers.
        spread: standard deviation of an electron around its proton, bohr.

    Returns:
        (number, N, 3) bohr, spin up first, those of a pair of neighbours (`paired`) at i and i + N/2.
    """
    return paired(protons) + spread * jax.random.normal(key, (number, *protons.shape), protons.dtype)


def with_random_spins(walkers: jax.Array, key: jax.Array) -> jax.Array:
    """Exchange, or not, the electrons of every pair of first walkers: each walker has a spin pattern of its own.

    A pattern that all walkers share is a state of its own, with an energy of its own, that takes long to be left; and
    the memory of patterns drawn at random vanishes whatever the symmetry of |psi|^2.

    Args:
        walkers: (number, N, 3), whose pairs are the electrons i and i + N/2.
        key: random key.

    Returns:
        (number, N, 3).
    """
    number, count, _ = walkers.shape
    pairs = walkers.reshape(number, 2, count // 2, 3)
    turned = jax.random.bernoulli(key, 0.5, (number, 1, count // 2, 1))
    return jnp.where(turned, pairs[:, ::-1], pairs).reshape(walkers.shape)


def with_random_charges(walkers: jax.Array, centres: jax.Array, key: jax.Array) -> jax.Array:
    """Put both electrons of a pair of first walkers near the same one of their two protons, in a part of all cases.

    One electron at every proton is a state of too low an energy, which takes hundreds of sweeps to be left where r_s is
    large: charges relax last.

    Args:
        walkers: (number, N, 3) of `initial_walkers`.
        centres: (N, 3) protons that the electrons are near to.
        key: random key.

    Returns:
        (number, N, 3).
    """
    number, count, _ = walkers.shape
    draws = jax.random.uniform(key, (number, count // 2, 1))
    apart = centres[count // 2 :] - centres[: count // 2]
    first, second = walkers[:, : count // 2], walkers[:, count // 2 :]
    first = jnp.where(draws < CHARGED / 2, first + apart, first)
    second = jnp.where((draws >= CHARGED / 2) & (draws < CHARGED), second - apart, second)
    return jnp.concatenate([first, second], axis=1)


def first_walkers(protons: jax.Array, key: jax.Array, number: int) -> jax.Array:
    """Walkers (number, N, 3), bohr, near protons (N, 3), each with charges and a spin pattern of its own."""
    place_key, charge_key, spin_key = jax.random.split(key, 3)
    walkers = with_random_charges(initial_walkers(protons, place_key, number), paired(protons), charge_key)
    return with_random_spins(walkers, spin_key)


def first_width(number: int) -> float:
    """Step width (bohr) of N electrons moved together, to begin with."""
    return FIRST_WIDTH * number**-0.5
