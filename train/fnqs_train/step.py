"""One step of the global optimisation: sample, local energies, derivatives, natural gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from fnqs.langevin import langevin
from fnqs.local_energy import local_energies
from fnqs.log_derivatives import log_derivatives
from fnqs.natural_gradient import centre_per_configuration, clip_local_energies, spring
from fnqs.sampling import adapt_widths, initial_walkers, metropolis
from fnqs.system import System
from fnqs.wavefunction import WaveFunction
from fnqs_train.chunks import Chunks
from fnqs_train.config import OptimizerConfig, SamplingConfig

MOVES = {"metropolis": metropolis, "langevin": langevin}
"""Ways to move the walkers, by their names in a config."""

ROUND = 5
"""Sweeps between two adaptations of the step width while equilibrating."""


class Learned(NamedTuple):
    """What the optimisation carries from step to step.

    Attributes:
        params: of the wave function.
        optimizer: state of the optax transformation.
    """

    params: dict
    optimizer: optax.OptState


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
def make_optimizer(settings: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Build the optax transformation of a run."""

    def schedule(count):
        return settings.learning_rate / (1 + count.astype(jnp.float32) / settings.decay_steps)

    if settings.method == "adam":
        return optax.with_extra_args_support(optax.adam(schedule))
    momentum = settings.momentum if settings.method == "spring" else 0.0
    return spring(schedule, damping=settings.damping, momentum=momentum, max_norm=settings.max_norm)


@cache
def make_equilibration(wavefunction: WaveFunction, sampling: SamplingConfig) -> Callable:
    """Compile equilibrate(params, systems, walkers, widths, fresh, key) -> walkers, widths, acceptance."""
    move = MOVES[sampling.move]

    @jax.jit
    def equilibrate(params, systems: System, walkers, widths, fresh, key):
        rounds = max(1, sampling.equilibration_sweeps // ROUND)
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        start_key, move_key = jax.random.split(key)
        configurations, number = walkers.shape[:2]
        draw = partial(initial_walkers, number=number)
        start = jax.vmap(draw)(contexts.protons, jax.random.split(start_key, configurations))
        walkers = jnp.where(fresh[:, None, None, None], start.astype(walkers.dtype), walkers)

        def one_round(state, key):
            walkers, widths = state
            walkers, acceptance = move(wavefunction, params, contexts, walkers, widths, key, ROUND)
            return (walkers, adapt_widths(widths, acceptance, sampling.target_acceptance)), acceptance

        (walkers, widths), acceptance = jax.lax.scan(one_round, (walkers, widths), jax.random.split(move_key, rounds))
        return walkers, widths, acceptance[-1]

    return equilibrate


@cache
def make_step(
    wavefunction: WaveFunction,
    optimizer: optax.GradientTransformationExtraArgs,
    sampling: SamplingConfig,
    clip_width: float,
    chunks: Chunks,
) -> Callable:
    """Compile step(learned, systems, walkers, widths, key) -> learned, walkers, widths, report.

    Shapes: systems stacked over K configurations of one N, walkers (K, n, N, 3), widths (K,).
    """
    move = MOVES[sampling.move]

    @partial(jax.jit, donate_argnums=(0,))
    def step(learned: Learned, systems: System, walkers, widths, key):
        params, number = learned.params, walkers.shape[2]
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        walkers, acceptance = move(wavefunction, params, contexts, walkers, widths, key, sampling.sweeps)
        widths = adapt_widths(widths, acceptance, sampling.target_acceptance)

        energies = local_energies(wavefunction, params, contexts, systems, walkers, chunks.energy)
        energies = energies.astype(jnp.complex128 if jnp.iscomplexobj(energies) else jnp.float64)
        rows = log_derivatives(wavefunction, params, systems, walkers, chunks.gradient)
        finite = jnp.all(jnp.isfinite(energies), axis=1) & jnp.all(jnp.isfinite(rows), axis=tuple(range(1, rows.ndim)))

        # A configuration with a non-finite number contributes nothing: zero rows, zero residual.
        keep = finite[:, None]
        clean = jnp.where(keep, clip_local_energies(energies, clip_width), 0.0)
        rows = jnp.where(finite.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0.0)
        residual, jacobian = _stack_parts(centre_per_configuration(clean), centre_per_configuration(rows))

        flat, unravel = ravel_pytree(params)
        gradient = unravel(2 * (residual.astype(jacobian.dtype) @ jacobian).astype(flat.dtype))
        updates, state = optimizer.update(gradient, learned.optimizer, params, jacobian=jacobian, residual=residual)
        change, _ = ravel_pytree(updates)
        taken = jnp.all(jnp.isfinite(change)) & jnp.any(finite)
        chosen = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old),
            Learned(cast(dict, optax.apply_updates(params, updates)), state),
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


def _stack_parts(residual: jax.Array, jacobian: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Turn complex residuals (R,) and rows (R, 2, P) into 2R real ones, the imaginary parts as extra rows."""
    if not jnp.iscomplexobj(residual):
        return residual, jacobian
    return (
        jnp.concatenate([jnp.real(residual), jnp.imag(residual)]),
        jnp.concatenate([jacobian[:, 0], jacobian[:, 1]]),
    )
