"""The centred Jacobian of log psi as the natural gradient sees it: a Gram matrix and two products.

The Gram matrix is summed in float64. In float32 its rounding error, some 1e-7 of its largest eigenvalue, exceeds the
damping from about a thousand rows on: the matrix then has no Cholesky factor, and a larger damping shortens the steps.
The rows stay in float32: what they are rounded by moves the solution as little as another draw of walkers would.
"""

from __future__ import annotations

import itertools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.walker_axis import WHOLE, WalkerAxis

COLUMNS = 4096
"""Columns of the Jacobian that are in memory in float64 at the same time."""

BLOCK_ROWS, MOST_BLOCKS = 256, 4
"""Rows in a block of the Gram matrix at least, and blocks along one side at most: of the blocks off the diagonal only
those on one side are computed, which saves up to three eighths of the work."""


class Jacobian(Protocol):
    """Centred and scaled rows O (R, P) of all walkers, columns in the order of `ravel_pytree`."""

    dtype: np.dtype

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O O^T (R, R) and O v (R,) of a vector (P,), both in float64."""
        ...

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """O^T x (P,) of a vector (R,) in float64."""
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
        self._rows, self._axis, self.dtype = rows, axis, rows.dtype
        self._parameters = rows.shape[1] if parameters is None else parameters

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O O^T (R, R) and O v (R,) of a vector (P,) in float64, both in one sum over the devices."""
        filled = jnp.pad(vector, (0, self._rows.shape[1] * self._axis.size - self._parameters))
        product = jnp.dot(self._rows, self._axis.share(filled, 0), preferred_element_type=jnp.float64)
        both = self._axis.sum(jnp.concatenate([gram_matrix(self._rows), product[:, None]], axis=1))
        return both[:, :-1], both[:, -1]

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """O^T x (P,) of a vector (R,) in float64: what O^T takes out of x is up to 1 / damping times what it leaves."""
        wide = vector.astype(jnp.float64)

        def product(part: jax.Array) -> jax.Array:
            return wide @ part.astype(jnp.float64)

        whole = _whole_columns(self._rows)
        products = [product(self._rows[:, whole:])]
        if whole:
            _, first = jax.lax.scan(lambda _, start: (None, product(_columns(self._rows, start))), None, _starts(whole))
            products.insert(0, first.ravel())
        return self._axis.gather(jnp.concatenate(products), 0)[: self._parameters]


def gram_matrix(rows: jax.Array) -> jax.Array:
    """O O^T (R, R) of rows (R, P) of any precision, multiplied and summed in float64.

    Rows are widened a few columns at a time; of the blocks off the diagonal one of each pair is computed.
    """
    number = len(rows)
    blocks = max(1, min(MOST_BLOCKS, number // BLOCK_ROWS))
    edges = [number * i // blocks for i in range(blocks + 1)]

    def lower(part: jax.Array) -> list[list[jax.Array]]:
        wide = part.astype(jnp.float64)
        cut = [wide[first:last] for first, last in itertools.pairwise(edges)]
        return [[cut[i] @ cut[j].T for j in range(i + 1)] for i in range(blocks)]

    def next_columns(total, start):
        return jax.tree.map(jnp.add, total, lower(_columns(rows, start))), None

    whole = _whole_columns(rows)
    total = lower(rows[:, whole:])
    if whole:
        total, _ = jax.lax.scan(next_columns, total, _starts(whole))
    return jnp.block([[total[i][j] if j <= i else total[j][i].T for j in range(blocks)] for i in range(blocks)])


def _whole_columns(rows: jax.Array) -> int:
    """Columns of rows (R, P) in whole batches of COLUMNS; the rest is taken by itself."""
    return rows.shape[1] // COLUMNS * COLUMNS


def _starts(whole: int) -> jax.Array:
    return jnp.arange(0, whole, COLUMNS)


def _columns(rows: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(rows, start, COLUMNS, axis=1)
