"""Compiled sampling of many configurations at once, each with random numbers of its own.

A batch has a fixed number of slots, taken in groups by a loop whose length is an argument: one compiled program
serves a full batch and a nearly empty one, and empty groups cost nothing. The slots are shared out among the devices
of a mesh, which have nothing to tell each other. The random numbers of a configuration depend on its own seed and on
how far it has come, not on its slot, its device or its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnqs.hamiltonian import local_energies
from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.metropolis import adapt_widths, initial_walkers, metropolis
from fnqs.wavefunction import WaveFunction
from fnqs_train.step import ROUND
from fnqs_train.walkers import START_WIDTH

MEASUREMENTS = 16
"""Local energies taken of every walker between two looks at the error bar."""

GROUPED = 2**13
"""Pairs of electrons, N^2 a walker, of the configurations that a processor samples side by side."""


OVER_DEVICES, SAME = PartitionSpec("slots"), PartitionSpec()


def make_slot_mesh() -> Mesh:
    """All devices of this process."""
    return Mesh(np.array(jax.local_devices()), ("slots",))


def group_size(slots: int, walkers: int, number: int) -> int:
    """Slots in a group: few on a processor, all those of a device on an accelerator."""
    if jax.default_backend() != "cpu":
        return slots
    return max(1, min(slots, GROUPED // (walkers * number**2)))


@cache
def make_equilibration(
    wavefunction: WaveFunction, walkers: int, sweeps: int, target_acceptance: float, group: int, mesh: Mesh
) -> Callable:
    """Compile equilibrate(params, systems, seeds, groups) -> contexts, walkers (S, n, N, 3), widths (S,).

    Systems are stacked over S slots, an equal part of them for each of D devices, seeds are (S,) uint32, groups (D,)
    int32; on every device slots beyond its first `groups` groups stay zero.
    """

    def one_group(params, systems, seeds):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 0))(seeds)
        start_keys, move_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        draw = partial(initial_walkers, number=walkers)
        positions = jax.vmap(lambda protons, key: draw(protons, key))(contexts.protons, start_keys)
        widths = jnp.full(seeds.shape, START_WIDTH, jnp.float32)

        def one_round(state, part):
            positions, widths = state
            keys = jax.vmap(lambda key: jax.random.fold_in(key, part))(move_keys)
            positions, acceptance = _move(wavefunction, params, contexts, positions, widths, keys, ROUND)
            return (positions, adapt_widths(widths, acceptance, target_acceptance)), None

        rounds = jnp.arange(max(1, sweeps // ROUND), dtype=jnp.uint32)
        (positions, widths), _ = jax.lax.scan(one_round, (positions.astype(jnp.float32), widths), rounds)
        return contexts, positions, widths

    @jax.jit
    def equilibrate(params, systems, seeds, groups):
        return _over_groups(one_group, params, (systems, seeds), group, groups, mesh)

    return equilibrate


@cache
def make_measure(wavefunction: WaveFunction, sweeps: int, chunk: int, group: int, mesh: Mesh) -> Callable:
    """Compile measure(params, contexts, systems, walkers, widths, seeds, parts, groups).

    It takes MEASUREMENTS local energies of every walker, `sweeps` all-electron moves apart. All but params and groups
    (as in `make_equilibration`) are stacked over S slots; parts (S,) counts the calls for each configuration, from 1.

    Returns:
        walkers (S, n, N, 3) in bohr, energies (MEASUREMENTS, S, n) in Ha, acceptance (S,).
    """

    def one_group(params, contexts, systems, walkers, widths, seeds, parts):
        keys = jax.vmap(lambda seed, part: jax.random.fold_in(jax.random.key(seed), part))(seeds, parts)

        def one(walkers, index):
            now = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
            walkers, acceptance = _move(wavefunction, params, contexts, walkers, widths, now, sweeps)
            walkers = jax.vmap(wrapped)(contexts.lattice, walkers)
            energies = local_energies(wavefunction, params, contexts, systems, walkers, chunk)
            return walkers, (energies, acceptance)

        walkers, (energies, acceptance) = jax.lax.scan(one, walkers, jnp.arange(MEASUREMENTS, dtype=jnp.uint32))
        return walkers, jnp.moveaxis(energies, 0, 1), jnp.mean(acceptance, axis=0)

    @jax.jit
    def measure(params, contexts, systems, walkers, widths, seeds, parts, groups):
        stacked = (contexts, systems, walkers, widths, seeds, parts)
        walkers, energies, acceptance = _over_groups(one_group, params, stacked, group, groups, mesh)
        return walkers, jnp.moveaxis(energies, 1, 0), acceptance

    return measure


def _move(wavefunction, params, contexts, walkers, widths, keys, sweeps):
    """Metropolis moves of several configurations, each with its own key: walkers and acceptance (K,)."""

    def one(context, positions, width, key):
        alone = jax.tree.map(lambda leaf: leaf[None], context)
        moved, acceptance = metropolis(wavefunction, params, alone, positions[None], width[None], key, sweeps)
        return moved[0], acceptance[0]

    return jax.vmap(one)(contexts, walkers, widths, keys)


def _over_groups(function: Callable, params, stacked, group: int, groups, mesh: Mesh):
    """Apply function(params, *slots) to the first groups of slots of every device; what it gives for others is zero."""

    def on_a_device(params, stacked, groups):
        def slots(start):
            return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, group), stacked)

        def body(index, results):
            found = function(params, *slots(index * group))
            return jax.tree.map(
                lambda all_, part: jax.lax.dynamic_update_slice_in_dim(all_, part, index * group, 0), results, found
            )

        shapes = jax.eval_shape(function, params, *jax.eval_shape(lambda: slots(0)))
        count = jax.tree.leaves(stacked)[0].shape[0]
        empty = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, groups[0], body, empty)

    shared = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=(SAME, OVER_DEVICES, OVER_DEVICES), out_specs=OVER_DEVICES, check_vma=False
    )
    return shared(params, stacked, groups)
