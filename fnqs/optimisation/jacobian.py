"""The centred Jacobian of log psi as the natural gradient sees it: a Gram matrix and two products."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.walker_axis import WHOLE, WalkerAxis


class Jacobian(Protocol):
    """Centred and scaled rows O (R, P) of all walkers, columns in the order of `ravel_pytree`."""

    dtype: np.dtype

    def gram(self) -> jax.Array:
        """O O^T (R, R)."""
        ...

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O O^T (R, R) and O v (R,) of a vector (P,)."""
        ...

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """O^T x (P,) of a vector (R,)."""
        ...


class StoredJacobian:
    """Rows kept in memory; each device has all rows of a d-th of the columns.

    Cutting columns, not rows, sends every entry once (an all-to-all), where gathering rows would send it d - 1 times.

    Args:
        rows: (R, P/d) of this device, the last columns filled with zeros.
        parameters: P.
        axis: over which the columns are cut.
    """

    def __init__(self, rows: jax.Array, parameters: int | None = None, axis: WalkerAxis = WHOLE):
        self._rows, self._axis = rows, axis
        self._parameters = rows.shape[1] if parameters is None else parameters
        self.dtype = rows.dtype

    def gram(self) -> jax.Array:
        """O O^T (R, R): the sum of what each device has from its columns."""
        return self._axis.sum(self._rows @ self._rows.T)

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O O^T (R, R) and O v (R,) of a vector (P,), both in one sum over the devices."""
        filled = jnp.pad(vector, (0, self._rows.shape[1] * self._axis.size - self._parameters))
        parts = [self._rows @ self._rows.T, (self._rows @ self._axis.share(filled, 0))[:, None]]
        both = self._axis.sum(jnp.concatenate(parts, axis=1))
        return both[:, :-1], both[:, -1]

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """O^T x (P,) of a vector (R,)."""
        return self._axis.gather(vector @ self._rows, 0)[: self._parameters]
