"""Equilibration of the configurations of a step that are new, or were not visited for long, before they count."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

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

GROUPED, GROUPS = 2**11, 4
"""Pairs of electrons, N^2 a walker, of the configurations that a processor moves together at most, and groups at least:
the fewer are moved together, the less is spent on the last of them, and the more on each."""


class _Moved(NamedTuple):
    """Walkers of K configurations on their way.

    Attributes:
        rounds: (K,) made.
        walkers: (K, n, N, 3) bohr, or this device's share of them.
        widths: (K,) bohr.
        fallen: (K,) round in which the memory fell, 0 before.
        acceptance: (K,) of the last round.
    """

    rounds: jax.Array
    walkers: jax.Array
    widths: jax.Array
    fallen: jax.Array
    acceptance: jax.Array


@cache
def make_equilibration(wavefunction: WaveFunction, sampling: SamplingConfig, mesh: Mesh | None = None) -> Callable:
    """Compile equilibrate(params, systems, walkers, widths, fresh, stale, key) -> walkers, widths, acceptance, settled.

    Fresh configurations start near their protons (`first_walkers`), stale ones from their walkers, and others stay as
    they are. Each is moved until it no longer remembers its first spin patterns (`fnqs.sampling.equilibration`):
    PATIENT times as long as the memory took to fall below FORGOTTEN, no less than sampling.equilibration_sweeps, or
    sampling.refresh_sweeps if it is stale, nor than N and density ask for (FEWEST) and no more than `longest`; settled
    (K,) says which of them came so far. In every round those that need it are moved, group by group; one that is done
    costs nothing more.
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
        size = _group_size(configurations, walkers.shape[1] * walkers.shape[2] ** 2)
        fewest, most = _limits(contexts, walkers.shape[2], jnp.where(fresh, *_least(sampling)))

        patterns = spin_patterns(contexts, walkers)
        forgotten = FORGOTTEN * axis.mean(jnp.mean(patterns**2, axis=(1, 2)))
        active, fixed = fresh | stale, (contexts, patterns, forgotten)

        def settled(state: _Moved):
            enough = jnp.ceil(PATIENT * state.fallen.astype(jnp.float32)).astype(jnp.int32)
            return (state.fallen > 0) & (state.rounds >= enough)

        def go_on(state: _Moved):
            sweeps = (state.rounds * ROUND).astype(jnp.float32)
            return active & ((sweeps < fewest) | (~settled(state) & (sweeps < most)))

        def one_round(key, state: _Moved, contexts, patterns, forgotten) -> _Moved:
            rounds, walkers, widths, fallen, _ = state
            walkers, accepted = move(wavefunction, params, contexts, walkers, widths, key, ROUND, axis)
            overlap = jnp.mean(spin_patterns(contexts, walkers) * patterns, axis=2)
            moments = jnp.stack([accepted, jnp.mean(overlap, axis=1), jnp.mean(overlap**2, axis=1)])
            acceptance, memory, square = axis.mean(moments)
            error = jnp.sqrt(jnp.maximum(square - memory**2, 0) / max(number - 1, 1))
            falls = (fallen == 0) & (memory <= jnp.maximum(forgotten, error))
            fallen = jnp.where(falls, rounds + 1, fallen)
            return _Moved(rounds + 1, walkers, adapt_widths(widths, acceptance, TARGET_ACCEPTANCE), fallen, acceptance)

        def every_group(state: _Moved) -> _Moved:
            moving = go_on(state)
            (order,) = jnp.nonzero(moving, size=configurations + size, fill_value=configurations)
            round_key = jax.random.fold_in(move_key, jnp.max(state.rounds))

            def one_group(group, state: _Moved) -> _Moved:
                places = jax.lax.dynamic_slice_in_dim(order, group * size, size)
                key = jax.random.fold_in(round_key, group)
                return _put(state, places, one_round(key, *_take((state, *fixed), places)))

            return jax.lax.fori_loop(0, -(-jnp.sum(moving, dtype=jnp.int32) // size), one_group, state)

        none = jnp.zeros(configurations, jnp.int32)
        state = _Moved(none, walkers, widths, none, jnp.zeros(configurations, walkers.dtype))
        state = jax.lax.while_loop(lambda state: jnp.any(go_on(state)), every_group, state)
        walkers = jax.vmap(wrapped)(contexts.lattice, state.walkers)
        return walkers, state.widths, state.acceptance, settled(state) | ~active

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
    groups = max(GROUPS, -(-configurations // max(1, GROUPED // pairs)))
    return -(-configurations // groups)


def _take(tree: Any, places: jax.Array) -> Any:
    """Take the entries at these places (G,) of all leaves; a place behind the end gives the last entry."""
    return jax.tree.map(lambda leaf: leaf.at[places].get(mode="clip"), tree)


def _put(tree: Any, places: jax.Array, new: Any) -> Any:
    """Put entries at these places (G,) of all leaves; what has a place behind the end is dropped."""
    return jax.tree.map(lambda leaf, entries: leaf.at[places].set(entries, mode="drop"), tree, new)
