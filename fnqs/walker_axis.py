"""The axis of a configuration's walkers, whole on one device or cut over the devices of a mesh.

Code that runs on a share of the walkers writes what concerns all of them with these few operations; on one device
each of them is the identity. Random numbers are drawn for all walkers and cut, so they are the same on any number of
devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class WalkerAxis:
    """How the walkers are cut.

    Attributes:
        name: of the mesh axis inside `jax.shard_map`; None: all walkers are here.
        size: d, devices along it.
    """

    name: str | None = None
    size: int = 1

    def gather(self, values: jax.Array, axis: int) -> jax.Array:
        """Join the shares of all devices along an array axis."""
        return values if self.name is None else jax.lax.all_gather(values, self.name, axis=axis, tiled=True)

    def sum(self, values: jax.Array) -> jax.Array:
        """Sum over the devices."""
        return values if self.name is None else jax.lax.psum(values, self.name)

    def mean(self, values: jax.Array) -> jax.Array:
        """Mean over the devices, whose shares are equal."""
        return values if self.name is None else jax.lax.pmean(values, self.name)

    def all(self, values: jax.Array) -> jax.Array:
        """Whether a truth value holds on every device."""
        return values if self.name is None else jax.lax.pmin(values.astype(jnp.int32), self.name).astype(bool)

    def share(self, values: jax.Array, axis: int) -> jax.Array:
        """Cut this device's share out of an array that is whole everywhere."""
        if self.name is None:
            return values
        length = values.shape[axis] // self.size
        return jax.lax.dynamic_slice_in_dim(values, jax.lax.axis_index(self.name) * length, length, axis)

    def columns(self, rows: jax.Array) -> jax.Array:
        """Exchange rows (K, n/d, ..., P) for all rows of a d-th of the columns (K, n, ..., P/d), filled with zeros."""
        if self.name is None:
            return rows
        filled = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % self.size)])
        return jax.lax.all_to_all(filled, self.name, split_axis=filled.ndim - 1, concat_axis=1, tiled=True)

    def normal(self, key: jax.Array, shape: tuple[int, ...], dtype, axis: int) -> jax.Array:
        """Draw this device's share, of this shape, of normal numbers for all walkers."""
        return self.share(jax.random.normal(key, self._whole(shape, axis), dtype), axis)

    def uniform(self, key: jax.Array, shape: tuple[int, ...], dtype, axis: int) -> jax.Array:
        """Draw this device's share of numbers above 0 and below 1."""
        tiny = jnp.finfo(dtype).tiny
        return self.share(jax.random.uniform(key, self._whole(shape, axis), dtype, minval=tiny), axis)

    def _whole(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], shape[axis] * self.size, *shape[axis + 1 :])


WHOLE = WalkerAxis()
"""All walkers on one device."""
