"""Compiled sampling of many configurations at once, each with random numbers of its own.

A batch has a fixed number of slots, taken in groups by a loop whose length is an argument: one compiled program
equilibrates and measures, serves a full batch and a nearly empty one, and empty groups cost nothing. The slots are
shared out among the devices of a mesh, which have nothing to tell each other. The random numbers of a configuration
depend on its own seed and on how far it has come, not on its slot, its device or its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnqs.compilation import compiled
from fnqs.hamiltonian import local_energies
from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.equilibration import spin_patterns
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.sampling.metropolis import adapt_widths, first_walkers, first_width
from fnqs.spin import sampled_spin_squared
from fnqs.wavefunction import WaveFunction

MEASUREMENTS = 16
"""Local energies taken of every walker between two looks at the error bar."""

GROUPED = 2**13
"""Pairs of electrons, N^2 a walker, of the configurations that a processor samples side by side."""


SPIN_STREAM = 2**20
"""Of the random numbers of S^2, beside those of the moves."""

OVER_DEVICES, SAME = PartitionSpec("slots"), PartitionSpec()


def make_slot_mesh() -> Mesh:
    """All devices of this process."""
    return Mesh(np.array(jax.local_devices()), ("slots",))


def group_size(slots: int, walkers: int, number: int) -> int:
    """Slots in a group: few on a processor, all those of a device on an accelerator."""
    if jax.default_backend() != "cpu":
        return slots
    return max(1, min(slots, GROUPED // (walkers * number**2)))


@dataclass(frozen=True)
class Slots:
    """Slots of one program, the same number on every device.

    Configurations are counted from 0; the groups of slots that they fill go to the devices in turns, so that all have
    the same to do.

    Attributes:
        devices: D.
        groups: of slots on a device.
        size: slots of a group.
    """

    devices: int
    groups: int
    size: int

    @property
    def number(self) -> int:
        """Slots in all."""
        return self.devices * self.groups * self.size

    @cached_property
    def order(self) -> np.ndarray:
        """Slot of every count (S,)."""
        by_device = np.arange(self.number).reshape(self.devices, self.groups, self.size)
        return by_device.swapaxes(0, 1).ravel()

    def filled(self, count: int) -> np.ndarray:
        """How many groups each device (D,) has to go through for so many configurations."""
        groups = -(-count // self.size)
        return np.array([len(range(device, groups, self.devices)) for device in range(self.devices)], np.int32)


def put(state: tuple, slot: int, own: tuple) -> None:
    """Write what belongs to one configuration into a slot of numpy arrays stacked over the slots."""
    for leaf, values in zip(jax.tree.leaves(state), jax.tree.leaves(own), strict=True):
        leaf[slot] = values


@cache
def make_start(wavefunction: WaveFunction, walkers: int, group: int, mesh: Mesh) -> Callable:
    """Compile start(params, systems, seeds, groups) -> contexts, walkers (S, n, N, 3), patterns (S, n, N), widths (S,).

    Systems are stacked over S slots, an equal part of them for each of D devices, seeds are (S,) uint32, groups (D,)
    int32; on every device slots beyond its first `groups` groups stay zero. Patterns are the walkers' spin patterns.
    """

    def one_group(params, systems, seeds):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 0))(seeds)
        positions = jax.vmap(partial(first_walkers, number=walkers))(contexts.protons, keys).astype(jnp.float32)
        widths = jnp.full(seeds.shape, first_width(positions.shape[2]), jnp.float32)
        return contexts, positions, spin_patterns(contexts, positions), widths

    @compiled
    def start(params, systems, seeds, groups):
        return _over_groups(one_group, params, (systems, seeds), group, groups, mesh)

    return start


@cache
def make_sampling(wavefunction: WaveFunction, chunk: int, group: int, mesh: Mesh) -> Callable:
    """Compile the one program that equilibrates and measures.

    sample(params, contexts, systems, walkers, widths, patterns, seeds, parts, groups, points, sweeps, target) takes
    `points` local energies of every walker, MEASUREMENTS at most, `sweeps` moves apart, and after each tunes the widths
    to the acceptance `target` unless that is 0. All but params, groups (as in `make_start`) and the last three are
    stacked over S slots; parts (S,) counts the calls for each configuration, from 1.

    Returns:
        walkers (S, n, N, 3) in bohr, widths (S,) in bohr, energies (MEASUREMENTS, S, n) in Ha, overlaps
        (MEASUREMENTS, S, n) of the spin patterns with `patterns`, samples (MEASUREMENTS, S, n) of S^2, zero beyond the
        points, and acceptance (S,).
    """

    def one_group(shared, contexts, systems, walkers, widths, patterns, seeds, parts):
        params, points, sweeps, target = shared
        keys = jax.vmap(lambda seed, part: jax.random.fold_in(jax.random.key(seed), part))(seeds, parts)

        @jax.jit  # traced once, for its shapes and in the loop
        def energies_of(walkers):
            return local_energies(wavefunction, params, contexts, systems, walkers, chunk)

        def spins_of(walkers, keys):
            def one(context, own, key):
                draw = partial(sampled_spin_squared, wavefunction, params, context)
                return jax.vmap(draw)(own, jax.random.split(key, own.shape[0]))

            return jax.vmap(one)(contexts, walkers, keys)

        def one(index, state):
            walkers, widths, energies, overlaps, spins, accepted = state
            now = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
            walkers, acceptance = _move(wavefunction, params, contexts, walkers, widths, now, sweeps)
            walkers = jax.vmap(wrapped)(contexts.lattice, walkers)
            widths = jnp.where(target > 0, adapt_widths(widths, acceptance, target), widths)
            overlap = jnp.mean(spin_patterns(contexts, walkers) * patterns, axis=-1)
            energies = energies.at[index].set(energies_of(walkers))
            drawn = spins_of(walkers, jax.vmap(lambda key: jax.random.fold_in(key, SPIN_STREAM))(now))
            spins = spins.at[index].set(drawn.astype(spins.dtype))
            return walkers, widths, energies, overlaps.at[index].set(overlap), spins, accepted + acceptance

        energies = jax.eval_shape(energies_of, walkers)
        empty = jnp.zeros((MEASUREMENTS, *energies.shape), energies.dtype)
        zeros = jnp.zeros((MEASUREMENTS, *energies.shape), walkers.dtype)
        state = (walkers, widths, empty, zeros, zeros, jnp.zeros(widths.shape, walkers.dtype))
        walkers, widths, energies, overlaps, spins, accepted = jax.lax.fori_loop(0, points, one, state)
        of_slots = (jnp.moveaxis(series, 1, 0) for series in (energies, overlaps, spins))
        return walkers, widths, *of_slots, accepted / points.astype(walkers.dtype)

    @compiled
    def sample(params, contexts, systems, walkers, widths, patterns, seeds, parts, groups, points, sweeps, target):
        stacked = (contexts, systems, walkers, widths, patterns, seeds, parts)
        shared = (params, points, sweeps, target)
        walkers, widths, *series, acceptance = _over_groups(one_group, shared, stacked, group, groups, mesh)
        return walkers, widths, *(jnp.moveaxis(each, 1, 0) for each in series), acceptance

    return sample


def make_measure(wavefunction: WaveFunction, sweeps: int, chunk: int, group: int, mesh: Mesh) -> Callable:
    """Return measure(params, contexts, systems, walkers, widths, seeds, parts, groups), which leaves the widths alone.

    It takes MEASUREMENTS local energies of every walker, `sweeps` moves apart, by the program of `make_sampling`.

    Returns:
        walkers (S, n, N, 3) in bohr, energies (MEASUREMENTS, S, n) in Ha, samples of S^2 (MEASUREMENTS, S, n),
        acceptance (S,).
    """
    sample = make_sampling(wavefunction, chunk, group, mesh)

    def measure(params, contexts, systems, walkers, widths, seeds, parts, groups):
        patterns = np.zeros(walkers.shape[:3], np.float32)
        walkers, _, energies, _, spins, acceptance = sample(
            params, contexts, systems, walkers, widths, patterns, seeds, parts, groups, *how(MEASUREMENTS, sweeps)
        )
        return walkers, energies, spins, acceptance

    return measure


def how(points: int, sweeps: int, target: float = 0.0) -> tuple[np.integer, np.integer, np.floating]:
    """Last arguments of a call of `make_sampling`, always of the same types: other ones would compile it again."""
    return np.int32(points), np.int32(sweeps), np.float32(target)


def _move(wavefunction, params, contexts, walkers, widths, keys, sweeps):
    """Move walkers of several configurations, each with its own key: walkers and acceptance (K,)."""

    def one(context, positions, width, key):
        alone = jax.tree.map(lambda leaf: leaf[None], context)
        moved, acceptance = metropolis_with_exchange(
            wavefunction, params, alone, positions[None], width[None], key, sweeps
        )
        return moved[0], acceptance[0]

    return jax.vmap(one)(contexts, walkers, widths, keys)


def _over_groups(function: Callable, shared, stacked, group: int, groups, mesh: Mesh):
    """Apply function(shared, *slots) to the first groups of slots of every device; what it gives for others is zero."""
    function = jax.jit(function)  # traced once, for its shapes and in the loop

    def on_a_device(shared, stacked, groups):
        def slots(start):
            return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, group), stacked)

        def body(index, results):
            found = function(shared, *slots(index * group))
            return jax.tree.map(
                lambda all_, part: jax.lax.dynamic_update_slice_in_dim(all_, part, index * group, 0), results, found
            )

        shapes = jax.eval_shape(function, shared, *jax.eval_shape(lambda: slots(0)))
        count = jax.tree.leaves(stacked)[0].shape[0]
        empty = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, groups[0], body, empty)

    on_devices = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=(SAME, OVER_DEVICES, OVER_DEVICES), out_specs=OVER_DEVICES, check_vma=False
    )
    return on_devices(shared, stacked, groups)
