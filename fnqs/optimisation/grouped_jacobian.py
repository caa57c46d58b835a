"""The Jacobian of log psi by groups of parameters, of which no step needs all rows at once.

The numbers are those of the rows to rounding. On a CPU the compiler does not yet keep the groups apart in time, so the
memory does not fall as it should; `MemoryConfig.jacobian_groups` is 1 unless asked for.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fnqs.local_energy import map_walkers
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.natural_gradient import centre_per_configuration, stack_parts
from fnqs.system import System
from fnqs.walker_axis import WHOLE, WalkerAxis
from fnqs.wavefunction import Context, WaveFunction


def leaf_groups(params: dict, groups: int) -> list[tuple[int, ...]]:
    """Cut the leaves of the parameters, in order, into at most so many groups of similar size.

    A leaf is never cut, so the largest leaf bounds the smallest possible group.
    """
    sizes = np.array([leaf.size for leaf in jax.tree.leaves(params)])
    middle = np.cumsum(sizes) - sizes / 2
    owner = np.minimum((middle * groups / sizes.sum()).astype(int), groups - 1)
    return [tuple(np.flatnonzero(owner == g).tolist()) for g in range(groups) if np.any(owner == g)]


class GroupedJacobian:
    """A `Jacobian` whose rows exist for one group of parameters at a time.

    The Gram matrix is the sum over groups, O^T x one weighted derivative of all walkers and O v one directional
    derivative, so no more than (R, P / groups) numbers need to live at a time.

    Args:
        wavefunction: the model.
        params: its parameters, P numbers.
        systems: K systems, stacked.
        walkers: (K, n/d, N, 3) bohr, the share of this device.
        finite: (K,) configurations that may count.
        chunk: upper limit of walkers differentiated together.
        groups: of the parameters.
        axis: over which the walkers are cut.

    Attributes:
        finite: (K,) those of them whose rows are finite; the others have zero rows.
    """

    def __init__(
        self,
        wavefunction: WaveFunction,
        params: dict,
        systems: System,
        walkers: jax.Array,
        finite: jax.Array,
        *,
        chunk: int,
        groups: int,
        axis: WalkerAxis = WHOLE,
    ):
        gram = jnp.zeros((), jnp.float32)
        for leaves in leaf_groups(params, groups):
            # Asks for one group after the other; XLA for processors does not keep to it (its planned memory is larger).
            after, _ = jax.lax.optimization_barrier((walkers, gram))
            rows = axis.columns(log_derivatives(wavefunction, params, systems, after, chunk, leaves))
            rows = rows[:, :, None] if rows.ndim == 3 else rows
            sound = axis.all(jnp.all(jnp.isfinite(rows), axis=(1, 2, 3)))
            finite = finite & sound
            rows = jnp.where(sound[:, None, None, None], rows, 0.0)
            centred = stack_parts(centre_per_configuration(rows))
            gram = gram + centred @ centred.T
        self.finite, self._parts = finite, rows.shape[2]
        keep = self._row_mask(finite, walkers.shape[1] * axis.size).astype(gram.dtype)
        self._gram = axis.sum(gram) * keep[:, None] * keep
        self.dtype = self._gram.dtype
        self._params, self._walkers, self._axis = params, walkers, axis
        # A left-out configuration takes part with weight zero; a sound one stands in for its numbers.
        owner = jnp.where(finite, jnp.arange(len(finite)), jnp.argmax(finite))
        self._log_psi = partial(
            _log_psi_parts,
            wavefunction,
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[owner], systems),
            walkers[owner],
            chunk,
        )

    def gram(self) -> jax.Array:
        """O O^T (R, R)."""
        return self._gram

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O O^T (R, R) and O v (R,) of a vector (P,)."""
        _, unravel = ravel_pytree(self._params)
        _, slopes = jax.jvp(self._log_psi, (self._params,), (unravel(vector),))
        slopes = self._axis.gather(slopes, 1)
        rows = stack_parts(centre_per_configuration(slopes))
        return self._gram, rows * self._row_mask(self.finite, slopes.shape[1]).astype(rows.dtype)

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """O^T x (P,) of a vector (R,)."""
        configurations, number = len(self.finite), self._walkers.shape[1] * self._axis.size
        weights = vector.reshape(self._parts, configurations, number).transpose(1, 2, 0)
        weights = weights * self.finite[:, None, None].astype(vector.dtype)
        # Centring is symmetric: centred weights on plain rows equal weights on centred rows.
        weights = centre_per_configuration(weights).reshape(weights.shape)
        values, pull_back = jax.vjp(self._log_psi, self._params)
        (gradient,) = pull_back(self._axis.share(weights, 1).astype(values.dtype))
        return self._axis.sum(ravel_pytree(gradient)[0])

    def _row_mask(self, finite: jax.Array, number: int) -> jax.Array:
        return jnp.tile(jnp.repeat(finite, number), self._parts)


def _log_psi_parts(
    wavefunction: WaveFunction, systems: System, walkers: jax.Array, chunk: int, params: dict
) -> jax.Array:
    """Log|psi| and, where psi is complex, its phase (K, n, parts); a derivative keeps one chunk at a time."""
    contexts = jax.vmap(partial(wavefunction.encode, params))(systems)

    @jax.checkpoint
    def values(context: Context, electrons: jax.Array) -> jax.Array:
        phase, log = jax.vmap(lambda r: wavefunction.log_psi(params, context, r))(electrons)
        return jnp.stack((log, jnp.angle(phase)) if jnp.iscomplexobj(phase) else (log,), axis=-1)

    return map_walkers(values, (contexts,), walkers, chunk)
