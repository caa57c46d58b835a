"""One step of the global optimisation: sample, local energies, derivatives, natural gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from fnqs.hamiltonian import local_energies
from fnqs.optimisation.jacobian import Jacobian, StoredJacobian
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.natural_gradient import (
    Weighting,
    centre_per_configuration,
    clip_local_energies,
    spread_weights,
    spring,
    stack_parts,
)
from fnqs.optimisation.subspace import ALL, SubspaceJacobian, Trained, subspace_of
from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.metropolis import adapt_widths
from fnqs.system import System
from fnqs.walker_axis import WalkerAxis
from fnqs.wavefunction import WaveFunction
from fnqs_train.chunks import Chunks
from fnqs_train.config import OptimizerConfig, SamplingConfig
from fnqs_train.distributed.sharding import compile_for, walker_axis
from fnqs_train.equilibration import MOVES, TARGET_ACCEPTANCE


class Learned(NamedTuple):
    """What the optimisation carries from step to step.

    Attributes:
        params: of the wave function.
        optimizer: state of the optax transformation.
        length: () factor of the change of the parameters, below 1 for a while after a run-away.
    """

    params: dict
    optimizer: optax.OptState
    length: jax.Array | np.float32 = np.float32(1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepReport:
    """Statistics of one step over K configurations, energies in Ha per atom, not clipped.

    Attributes:
        energy: (K,) means.
        variance: (K,) variances of the local energy of the cell, divided by N (Ha^2 per atom).
        acceptance: (K,) accepted fractions.
        finite: (K,) whether every walker, energy and derivative was finite.
        taken: () whether the parameters were changed.
        update_norm: () length of the change of the parameters.
        fallback: () whether the solve needed its larger damping.
    """

    energy: jax.Array
    variance: jax.Array
    acceptance: jax.Array
    finite: jax.Array
    taken: jax.Array
    update_norm: jax.Array
    fallback: jax.Array


@cache
def make_optimizer(settings: OptimizerConfig, steps: int = 0) -> optax.GradientTransformationExtraArgs:
    """Build the optax transformation of a run of so many steps; they matter to the cool-down only."""

    def schedule(count):
        rate = settings.learning_rate / (1 + count.astype(jnp.float32) / settings.decay_steps)
        if settings.cooldown_steps:
            rate = rate * jnp.clip((steps - count).astype(jnp.float32) / settings.cooldown_steps, 0.0, 1.0)
        return rate

    return spring(schedule, damping=settings.damping, momentum=settings.momentum, max_norm=settings.max_norm)


@cache
def make_step(
    wavefunction: WaveFunction,
    optimizer: optax.GradientTransformationExtraArgs,
    sampling: SamplingConfig,
    clip_width: float,
    chunks: Chunks,
    mesh: Mesh | None = None,
    trained: Trained = ALL,
    weighting: Weighting = "equal",
) -> Callable:
    """Compile step(learned, systems, walkers, widths, key) -> learned, walkers, widths, report.

    Shapes: systems stacked over K configurations of one N, walkers (K, n, N, 3), widths (K,). With a mesh,
    the walkers of every configuration are cut over its devices and everything else is the same on all of them.
    """
    move, axis = MOVES[sampling.move], walker_axis(mesh)

    # Nothing is given away for its memory to be used again: after a failure for want of memory the step is repeated.
    @partial(compile_for, mesh, walkers_in=2, walkers_out=1, arguments=5, results=4)
    def step(learned: Learned, systems: System, walkers, widths, key):
        params, number = learned.params, walkers.shape[2]
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        walkers, accepted = move(wavefunction, params, contexts, walkers, widths, key, sampling.sweeps, axis)
        walkers = jax.vmap(wrapped)(contexts.lattice, walkers)
        energies = local_energies(wavefunction, params, contexts, systems, walkers, chunks.energy)
        rows = _rows(wavefunction, params, systems, walkers, chunks, trained)

        # A configuration with a non-finite number contributes nothing: zero rows, zero residual.
        sound = jnp.all(jnp.isfinite(energies), axis=1) & jnp.all(jnp.isfinite(rows), axis=tuple(range(1, rows.ndim)))
        energies, acceptance, finite = _gather(energies, accepted, sound, axis)
        widths = adapt_widths(widths, acceptance, TARGET_ACCEPTANCE)
        jacobian = _jacobian(params, rows, finite, axis, trained)
        clean = jnp.where(finite[:, None], clip_local_energies(energies, clip_width), 0.0)
        if weighting == "spread":
            clean = clean * spread_weights(clean, finite)[:, None].astype(clean.dtype)
        residual = _residual(centre_per_configuration(clean))

        flat, unravel = ravel_pytree(params)
        gradient = unravel(2 * jacobian.transposed_times(residual).astype(flat.dtype))
        updates, state = optimizer.update(gradient, learned.optimizer, params, jacobian=jacobian, residual=residual)
        updates = jax.tree.map(lambda leaf: leaf * learned.length.astype(leaf.dtype), updates)
        change, _ = ravel_pytree(updates)
        taken = jnp.all(jnp.isfinite(change)) & jnp.any(finite)
        chosen = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old),
            Learned(cast(dict, optax.apply_updates(params, updates)), state, jnp.asarray(learned.length)),
            learned,
        )
        report = StepReport(
            energy=jnp.mean(jnp.real(energies), axis=1) / number,
            variance=jnp.var(energies, axis=1) / number,
            acceptance=acceptance,
            finite=finite,
            taken=taken,
            update_norm=jnp.linalg.norm(change),
            fallback=jnp.asarray(getattr(state, "fallback", False)),
        )
        return chosen, walkers, widths, report

    return step


def _gather(
    energies: jax.Array, accepted: jax.Array, sound: jax.Array, axis: WalkerAxis
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Join what every device has found, in one exchange: each of them costs a wait for the slowest device.

    Args:
        energies: (K, n/d) Ha.
        accepted: (K,) fraction of this device's moves.
        sound: (K,) whether all of its numbers are finite.
        axis: over which the walkers are cut.

    Returns:
        energies (K, n) in double precision, accepted fractions (K,) and truth values (K,) of all devices together.
    """
    kind = jnp.complex128 if jnp.iscomplexobj(energies) else jnp.float64
    own = jnp.concatenate([part.astype(kind) for part in (energies, accepted[:, None], sound[:, None])], axis=1)
    shares = axis.gather(own[:, None], 1)
    acceptance = jnp.mean(jnp.real(shares[:, :, -2]), axis=1).astype(accepted.dtype)
    return shares[:, :, :-2].reshape(len(own), -1), acceptance, jnp.all(jnp.real(shares[:, :, -1]) == 1, axis=1)


def _rows(
    wavefunction: WaveFunction, params: dict, systems: System, walkers: jax.Array, chunks: Chunks, trained: Trained
) -> jax.Array:
    """Differentiate log psi of this device's walkers in the parameters, or directions, that are trained."""
    subspace = subspace_of(params, trained)
    leaves = None if subspace is None else subspace.leaves
    rows = log_derivatives(wavefunction, params, systems, walkers, chunks.gradient, leaves)
    return rows if subspace is None else subspace.reduce(rows)


def _jacobian(params: dict, rows: jax.Array, finite: jax.Array, axis: WalkerAxis, trained: Trained) -> Jacobian:
    """Centred Jacobian of the configurations that are finite (K,), from the rows of this device's walkers."""
    rows = jnp.where(finite.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0.0)
    parameters = rows.shape[-1]
    rows = centre_per_configuration(axis.columns(rows))
    stored = StoredJacobian(stack_parts(rows) if rows.ndim == 3 else rows, parameters, axis)
    subspace = subspace_of(params, trained)
    return stored if subspace is None else SubspaceJacobian(stored, subspace)


def _residual(residual: jax.Array) -> jax.Array:
    """Turn complex residuals (R,) into 2R real ones, the imaginary parts last."""
    return jnp.concatenate([jnp.real(residual), jnp.imag(residual)]) if jnp.iscomplexobj(residual) else residual
