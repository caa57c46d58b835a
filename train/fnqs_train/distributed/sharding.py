"""Where the numbers of a run live: walkers cut over the devices of one mesh, everything else on each of them.

The axis that is cut is that of a configuration's walkers, not that of the configurations. So a step of one
configuration uses all devices, no configuration ever changes its process, and the order of the data does not depend on
the number of processes. Means over a configuration need collectives, of energies and acceptances only: the derivatives
are exchanged before they are centred (`WalkerAxis.columns`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnqs.compilation import compiled
from fnqs.errors import InputError
from fnqs.walker_axis import WHOLE, WalkerAxis

AXIS = "walkers"
"""Name of the only axis of the mesh."""

SHARDED, REPLICATED = PartitionSpec(None, AXIS), PartitionSpec()
"""Layouts of walkers (K, n, N, 3) and of everything else."""


def make_mesh(walkers: int) -> Mesh | None:
    """Make a mesh of all devices of all processes, those of a process side by side; None for a single device.

    Raises:
        InputError: the walkers of a configuration cannot be shared equally, or the processes differ in devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    count, processes = len(devices), jax.process_count()
    counts = [sum(device.process_index == process for device in devices) for process in range(processes)]
    if len(set(counts)) > 1:
        raise InputError(f"the processes have different numbers of devices ({counts}); give all the same number")
    if walkers % count:
        where = f" ({processes} processes with {count // processes} each)" if processes > 1 else ""
        raise InputError(
            f"sampling.walkers_per_configuration = {walkers} cannot be shared by {count} devices{where}; "
            f"give a multiple of {count}"
        )
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)) if count > 1 else None


def walker_axis(mesh: Mesh | None) -> WalkerAxis:
    """Return the axis of the walkers inside a function compiled for this mesh."""
    return WHOLE if mesh is None else WalkerAxis(AXIS, mesh.size)


def compile_for(
    mesh: Mesh | None,
    function: Callable,
    *,
    walkers_in: int,
    walkers_out: int,
    arguments: int,
    results: int,
) -> Callable:
    """Compile a function, one argument and one result of which are walkers, for one device or a mesh.

    Args:
        mesh: None for one device.
        function: works on the walkers of one device.
        walkers_in: place of the walkers among the arguments.
        walkers_out: place of the walkers among the results.
        arguments: number of arguments.
        results: number of results.
    """
    if mesh is None:
        return compiled(function)
    taken = tuple(SHARDED if i == walkers_in else REPLICATED for i in range(arguments))
    given = tuple(SHARDED if i == walkers_out else REPLICATED for i in range(results))
    # Replication is ours to keep: with check_vma, gradients of replicated parameters would be summed over devices.
    cut = jax.shard_map(function, mesh=mesh, in_specs=taken, out_specs=given, check_vma=False)
    return compiled(
        cut,
        in_shardings=tuple(NamedSharding(mesh, spec) for spec in taken),
        out_shardings=tuple(NamedSharding(mesh, spec) for spec in given),
    )


def place_walkers(mesh: Mesh | None, walkers: np.ndarray) -> Any:
    """Put the walkers of this process (K, n / processes, N, 3) on its devices."""
    if mesh is None:
        return walkers
    return jax.make_array_from_process_local_data(NamedSharding(mesh, SHARDED), walkers)


def place_same(mesh: Mesh | None, tree: Any) -> Any:
    """Put arrays that every process has alike on all devices; always in one layout, or programs compile twice."""
    if mesh is None:
        return tree
    layout = NamedSharding(mesh, REPLICATED)

    def place(leaf):
        if isinstance(leaf, jax.Array) and leaf.sharding == layout:
            return leaf
        return jax.make_array_from_process_local_data(layout, np.asarray(leaf))

    return jax.tree.map(place, tree)


def fetch_walkers(walkers: jax.Array) -> np.ndarray:
    """Bring the walkers of this process's devices to the host."""
    if walkers.is_fully_addressable:
        return np.asarray(walkers)
    shards = sorted(walkers.addressable_shards, key=lambda shard: shard.index[1].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards], axis=1)


def random_keys(mesh: Mesh | None, seed: int) -> Callable[[int], tuple[jax.Array, jax.Array]]:
    """Make a function of the step that gives its two keys, for moves and for equilibration, on all devices."""
    layout = None if mesh is None else NamedSharding(mesh, REPLICATED)

    @partial(jax.jit, out_shardings=layout)
    def keys(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        move, equilibration = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
        return move, equilibration

    return lambda step: keys(np.int64(step))
