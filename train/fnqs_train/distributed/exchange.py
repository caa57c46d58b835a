"""What each process has prepared a share of, brought to all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnqs_train.distributed.sharding import REPLICATED

PROCESSES, DEVICES = "processes", "devices"
"""Axes of the mesh of the exchange."""

SHARES = PartitionSpec(PROCESSES)
"""Layout of rows that each process has a share of."""


def gather_rows(mesh: Mesh | None, tree: Any, count: int) -> Any:
    """Put the rows that all processes hold together on every device, and wait until they are there.

    All processes must call this in the same order. Alone, the rows stay where they are.

    Args:
        mesh: of all devices of all processes, those of a process side by side; None for a single device.
        tree: of arrays (c, ...), the consecutive rows of this process; c is the same everywhere.
        count: K, rows to keep of all P c.

    Returns:
        the tree of arrays (K, ...).
    """
    if mesh is None or jax.process_count() == 1:
        return tree
    layout = NamedSharding(_processes(mesh), SHARES)
    shares = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(layout, np.asarray(leaf)), tree)
    # Two programs with collectives must not be on their way together.
    return jax.block_until_ready(_program(mesh, count)(shares))


def _processes(mesh: Mesh) -> Mesh:
    """Arrange the devices by process."""
    devices = mesh.devices.reshape(jax.process_count(), -1)
    return Mesh(devices, (PROCESSES, DEVICES), axis_types=(AxisType.Auto, AxisType.Auto))


@lru_cache
def _program(mesh: Mesh, count: int) -> Callable[[Any], Any]:
    """Compile the exchange; it compiles again for arrays of other shapes."""
    cut = partial(jax.shard_map, mesh=_processes(mesh), in_specs=SHARES, out_specs=REPLICATED, check_vma=False)
    return jax.jit(cut(partial(_gathered, count=count)), out_shardings=NamedSharding(mesh, REPLICATED))


def _gathered(tree: Any, count: int) -> Any:
    """Send all arrays of a type in one message: for each message the processes have to wait for each other."""
    leaves, structure = jax.tree.flatten(tree)
    whole = list(leaves)
    for kind in dict.fromkeys(leaf.dtype for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if leaf.dtype == kind]
        flat = [leaves[i].reshape(len(leaves[i]), -1) for i in places]
        rows = jax.lax.all_gather(jnp.concatenate(flat, axis=1), PROCESSES, tiled=True)[:count]
        ends = np.cumsum([part.shape[1] for part in flat])[:-1]
        for i, part in zip(places, jnp.split(rows, ends, axis=1), strict=True):
            whole[i] = part.reshape(count, *leaves[i].shape[1:])
    return jax.tree.unflatten(structure, whole)
