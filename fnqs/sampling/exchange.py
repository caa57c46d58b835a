"""Moves of all electrons and, now and then, exchanges of two nearby electrons of opposite spin.

Where electrons sit on protons, moves of all of them change the spin pattern only when two electrons pass each other,
which they seldom do; an exchange changes it at once, for the same cost of one log psi. Integrated autocorrelation times
of the shipped model, N = 8, in turns (tests/benchmarks/exchange_ratio.py; standard errors of the energies 0.3 to 1.5):

    one exchange in           2      3      5      9   no turns
    sc 1.6, spin pattern   11.2   13.2   17.3   21.5   37.4
            energy         11.3   10.4    9.5    9.5    9.8
    Pa-3 2.2, pattern       9.6   12.9   15.4   24.1   48.8
            energy         14.4   12.7   15.9   10.5   11.5

One in three forgets the pattern nearly as fast as one in two, and the energy about as fast as moves alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.periodic.smooth_distance import SmoothLattice, smooth_pair
from fnqs.sampling.metropolis import chain, moved
from fnqs.walker_axis import WHOLE, WalkerAxis
from fnqs.wavefunction import Context, WaveFunction

REACH = 0.8
"""Distance, in units of r_s, at which an electron is chosen as partner by exp(-1/2) less often than one close by."""

EVERY = 3
"""Turns of which one is an exchange, by default."""


def metropolis_with_exchange(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    walkers: jax.Array,
    widths: jax.Array,
    key: jax.Array,
    sweeps: int | jax.Array,
    axis: WalkerAxis = WHOLE,
    every: int | jax.Array = EVERY,
) -> tuple[jax.Array, jax.Array]:
    """Move walkers `sweeps` times: two electrons by exchange in one of `every` turns, all electrons in the others.

    The first turn moves all electrons; which of the next ones are exchanges, drawn anew in every call, has the right
    frequency in calls of any length but the shortest. Other arguments and results are those of `metropolis`; the
    accepted fraction is that of the moves of all electrons, to which the widths belong.
    """
    key, phase_key = jax.random.split(key)
    period = jnp.asarray(every, jnp.int32)
    phase = jax.random.randint(phase_key, (), 1, period, jnp.int32)
    reach = (REACH * contexts.r_s).astype(walkers.dtype)
    lattice = contexts.lattice.astype(walkers.dtype)

    def propose(turn: jax.Array, key: jax.Array, positions: jax.Array):
        move_key, up_key, down_key = jax.random.split(key, 3)
        trial = moved(positions, widths, move_key, axis)
        shape = positions.shape[:2]
        up, down = (axis.uniform(one, shape, positions.dtype, 1) for one in (up_key, down_key))
        of_walkers = jax.vmap(exchanged, (None, None, 0, 0, 0))
        swapped, log_proposals = jax.vmap(of_walkers)(lattice, reach, positions, up, down)
        exchanges = (turn.astype(jnp.int32) + phase) % period == 0
        return (
            jnp.where(exchanges, swapped, trial),
            jnp.where(exchanges, log_proposals, jnp.zeros_like(log_proposals)),
            ~exchanges,
        )

    return chain(wavefunction, params, contexts, propose, walkers, key, sweeps, axis)


def exchanged(
    lattice: SmoothLattice, reach: jax.Array, electrons: jax.Array, up: jax.Array, down: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Exchange an electron of spin up, each equally likely, with one of spin down, by preference one close by.

    With s the smooth distance, its partner is chosen with a probability proportional to exp(-s^2 / 2 reach^2).

    Args:
        lattice: smooth distances.
        reach: () bohr.
        electrons: (N, 3) bohr, spin up first, N even.
        up: () random number above 0 and below 1, for the electron of spin up.
        down: () the same for its partner.

    Returns:
        electrons (N, 3) afterwards, and the logarithm of the probability of the way back over that of the way there.
    """
    half = len(electrons) // 2

    def log_chances(electron: jax.Array, partners: jax.Array) -> jax.Array:
        square, _ = smooth_pair(lattice, electron - partners)
        return jax.nn.log_softmax(-0.5 * square / reach**2)

    first = jnp.minimum((up * half).astype(jnp.int32), half - 1)
    there = log_chances(electrons[first], electrons[half:])
    place = jnp.minimum(jnp.sum(jnp.cumsum(jnp.exp(there)) < down, dtype=jnp.int32), half - 1)
    trial = electrons.at[first].set(electrons[half + place]).at[half + place].set(electrons[first])
    back = log_chances(trial[first], trial[half:])
    return trial, back[place] - there[place]
