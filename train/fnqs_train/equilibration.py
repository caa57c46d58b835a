"""Equilibration of the configurations of a step that are new, or were not visited for long, before they count."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.equilibration import FORGOTTEN, SWEEPS_AN_ELECTRON, SWEEPS_AT_LEAST, spin_patterns
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.sampling.langevin import langevin
from fnqs.sampling.metropolis import adapt_widths, first_walkers
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction
from fnqs_train.config import SamplingConfig
from fnqs_train.distributed.sharding import compile_for, walker_axis

MOVES = {"metropolis": metropolis_with_exchange, "langevin": langevin}
"""Ways to move the walkers, by their names in a config."""

TARGET_ACCEPTANCE = 0.5
"""Accepted share of the moves to which each configuration's step width is tuned."""

ROUND = 6
"""Sweeps between two adaptations of the step width, and two looks at the memory."""

PATIENT = 2.5
"""Sweeps in all over those after which the memory had fallen, as in evaluations; no energy is tested."""

FEWEST, FEWEST_AN_ELECTRON = 12, 2
"""Sweeps at least: so many, and so many times N max(1, r_s): charges relax later than spins."""

GROUPED = 2**12
"""Pairs of electrons, N^2 a walker, of the configurations that a processor moves together until all have settled."""


@cache
def make_equilibration(wavefunction: WaveFunction, sampling: SamplingConfig, mesh: Mesh | None = None) -> Callable:
    """Compile equilibrate(params, systems, walkers, widths, fresh, stale, key) -> walkers, widths, acceptance, settled.

    Fresh configurations start near their protons (`first_walkers`), stale ones from their walkers, and others stay as
    they are. Each is moved until it no longer remembers its first spin patterns (`fnqs.sampling.equilibration`):
    PATIENT times as long as the memory took to fall below FORGOTTEN, no less than sampling.equilibration_sweeps, or
    sampling.refresh_sweeps if it is stale, nor than N and density ask for (FEWEST) and no more than `longest`; settled
    (K,) says which of them came so far. They are moved in groups of which all need about as long, and a group that is
    done costs nothing more.
    """
    move, axis = MOVES[sampling.move], walker_axis(mesh)

    @partial(compile_for, mesh, walkers_in=2, walkers_out=0, arguments=7, results=4)
    def equilibrate(params, systems: System, walkers, widths, fresh, stale, key):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        start_key, move_key = jax.random.split(key)
        configurations, number = walkers.shape[0], walkers.shape[1] * axis.size
        draw = partial(first_walkers, number=number)
        start = axis.share(jax.vmap(draw)(contexts.protons, jax.random.split(start_key, configurations)), 1)
        walkers = jnp.where(fresh[:, None, None, None], start.astype(walkers.dtype), walkers)
        fewest, most = _limits(contexts, walkers.shape[2], jnp.where(fresh, *_least(sampling)))

        def one_group(group):
            index, contexts, walkers, widths, active, fewest, most = group
            patterns = spin_patterns(contexts, walkers)
            forgotten = FORGOTTEN * axis.mean(jnp.mean(patterns**2, axis=(1, 2)))
            group_key = jax.random.fold_in(move_key, index)

            def settled(rounds, fallen):
                return (fallen > 0) & (rounds >= jnp.ceil(PATIENT * fallen.astype(jnp.float32)).astype(jnp.int32))

            def goes_on(state):
                rounds, _, _, fallen, _ = state
                sweeps = (rounds * ROUND).astype(jnp.float32)
                return jnp.any(active & ((sweeps < fewest) | (~settled(rounds, fallen) & (sweeps < most))))

            def one_round(state):
                rounds, walkers, widths, fallen, _ = state
                now = jax.random.fold_in(group_key, rounds)
                moved, accepted = move(wavefunction, params, contexts, walkers, widths, now, ROUND, axis)
                walkers = jnp.where(active[:, None, None, None], moved, walkers)
                overlap = jnp.mean(spin_patterns(contexts, walkers) * patterns, axis=2)
                moments = jnp.stack([accepted, jnp.mean(overlap, axis=1), jnp.mean(overlap**2, axis=1)])
                acceptance, memory, square = axis.mean(moments)
                error = jnp.sqrt(jnp.maximum(square - memory**2, 0) / max(number - 1, 1))
                falls = (fallen == 0) & (memory <= jnp.maximum(forgotten, error))
                fallen = jnp.where(falls, rounds + 1, fallen)
                adapted = adapt_widths(widths, acceptance, TARGET_ACCEPTANCE)
                return rounds + 1, walkers, jnp.where(active, adapted, widths), fallen, acceptance

            none = jnp.zeros(len(widths), walkers.dtype)
            state = (jnp.zeros((), jnp.int32), walkers, widths, jnp.zeros(len(widths), jnp.int32), none)
            rounds, walkers, widths, fallen, acceptance = jax.lax.while_loop(goes_on, one_round, state)
            return walkers, widths, acceptance, settled(rounds, fallen) | ~active

        active = fresh | stale
        size = _group_size(configurations, walkers.shape[1] * walkers.shape[2] ** 2)
        order = jnp.argsort(jnp.where(active, fewest, jnp.inf))
        state = (contexts, walkers, widths, active, fewest, most)
        walkers, widths, acceptance, reached = _in_groups(one_group, state, order, size)
        return jax.vmap(wrapped)(contexts.lattice, walkers), widths, acceptance, reached

    return equilibrate


def _least(sampling: SamplingConfig) -> tuple[float, float]:
    """Sweeps at least of fresh and of stale configurations, by the config."""
    return float(sampling.equilibration_sweeps), float(sampling.refresh_sweeps)


def _limits(contexts: Context, number: int, least: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Fewest and most sweeps (K,) of configurations of N electrons, of which `least` (K,) are asked for in any case."""
    r_s = jnp.maximum(contexts.r_s.astype(jnp.float32), 1)
    fewest = jnp.maximum(FEWEST + FEWEST_AN_ELECTRON * number * r_s, least.astype(jnp.float32))
    return fewest, SWEEPS_AT_LEAST + SWEEPS_AN_ELECTRON * number * r_s**2


def _group_size(configurations: int, pairs: int) -> int:
    """Choose how many configurations are in a group, each of so many pairs: all of them on an accelerator."""
    if jax.default_backend() != "cpu":
        return configurations
    groups = -(-configurations // max(1, GROUPED // pairs))
    return -(-configurations // groups)


def _in_groups(function: Callable, state: tuple, order: jax.Array, size: int) -> Any:
    """Apply function((index of the group, *state)) to groups of configurations, one after another.

    Args:
        function: of state stacked over a group, whose fourth entry says which of its configurations are moved.
        state: stacked over K configurations.
        order: (K,) in which they are put into groups.
        size: configurations of a group; the last one is filled up with some that are not moved.

    Returns:
        what the function gives, stacked over the K configurations.
    """
    configurations = len(order)
    groups = -(-configurations // size)
    places = jnp.pad(order, (0, groups * size - configurations))
    real = jnp.arange(groups * size) < configurations
    contexts, walkers, widths, active, *limits = jax.tree.map(lambda leaf: leaf[places], state)
    filled = (contexts, walkers, widths, active & real, *limits)
    cut = jax.tree.map(lambda leaf: leaf.reshape(groups, size, *leaf.shape[1:]), filled)
    results = jax.lax.map(function, (jnp.arange(groups), *cut))
    back = jnp.argsort(order)
    return jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:])[back], results)
