"""The phases of an optimisation step as compiled programs of their own, from the packages' public functions.

The chunks of walkers are those of training. Every program takes its data as arguments, so that XLA cannot compute
any of it in advance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from phase_case import SEED, Case, State

from fnqs.ewald import ewald_energy
from fnqs.hamiltonian import kinetic_energy, local_energies, map_walkers
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.natural_gradient import centre_per_configuration
from fnqs.sampling.metropolis import metropolis
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_train.chunks import choose_chunks
from fnqs_train.step import Learned, make_optimizer, make_step


@dataclass(frozen=True)
class Phase:
    """One phase, ready to be repeated.

    Attributes:
        run: does the phase once and returns arrays to wait for.
        compiled: its program, or None for work of the host.
        operations: floating-point operations of all walkers, or None where they cannot be counted.
        double: whether it computes in float64.
        compile_seconds: of its program with an empty cache.
    """

    run: Callable[..., Any]
    compiled: jax.stages.Compiled | None = None
    operations: float | None = None
    double: bool = False
    compile_seconds: float | None = None


def make_phases(case: Case, state: State, clock: Callable[[], float]) -> dict[str, Phase]:
    """Compile every phase of a case; `sweep_one` serves to find the cost of a further sweep."""
    config, wavefunction = case.config, WaveFunction(case.config.model)
    chunks = choose_chunks(case.number, config.model, config.memory)
    configurations, walkers = state.walkers.shape[:2]
    systems = jax.device_put(state.systems)
    params, contexts, positions, key = state.params, state.contexts, state.walkers, jax.random.key(SEED)
    optimizer = make_optimizer(config.optimizer)

    def all_walkers(one: Callable) -> Callable:
        """Map one(context, system, electrons) over all walkers at once, as XLA counts operations best."""
        return lambda contexts, systems, r: jax.vmap(jax.vmap(one, (None, None, 0)))(contexts, systems, r)

    def in_chunks(one: Callable) -> Callable:
        """Map it over chunks of walkers, as training does."""

        def function(contexts, systems, r):
            def part(context, system, electrons):
                return jax.vmap(lambda walker: one(context, system, walker))(electrons)

            return map_walkers(part, (contexts, systems), r, chunks.energy)

        return function

    def with_params(one: Callable, mapping: Callable) -> Callable:
        return lambda params, contexts, systems, r: mapping(partial(one, params))(contexts, systems, r)

    def forward(params, context, system, r):
        del system
        return wavefunction.log_psi(params, context, r)[1]

    def kinetic(params, context, system, r):
        del system
        return kinetic_energy(wavefunction, params, context, r)

    def coulomb(params, context, system, r):
        del params, context
        return ewald_energy(system.ewald, r)

    def sampling(sweeps: int) -> Callable:
        return lambda params, contexts, r, widths, key: metropolis(
            wavefunction, params, contexts, r, widths, key, sweeps
        )

    def rows(chunk: int) -> Callable:
        return lambda params, systems, r: log_derivatives(wavefunction, params, systems, r, chunk)

    def phase(function: Callable, *arguments, counted: float | None = None, double: bool = False) -> Phase:
        began = clock()
        lowered = jax.jit(function).lower(*arguments)
        compiled = lowered.compile()
        seconds = clock() - began
        counted = operations(lowered) if counted is None else counted
        return Phase(lambda: compiled(*arguments), compiled, counted, double, seconds)

    def count(function: Callable, *arguments) -> float:
        return operations(jax.jit(function).lower(*arguments))

    each = (params, contexts, systems, positions)
    moves = (params, contexts, positions, state.widths, key)
    forward_count = count(with_params(forward, all_walkers), *each)
    kinetic_count = count(with_params(kinetic, all_walkers), *each)
    ewald_count = count(with_params(coulomb, all_walkers), *each)
    sweeps = config.sampling.sweeps
    phases = {
        "forward": phase(with_params(forward, all_walkers), *each, counted=forward_count),
        "sweep_one": phase(sampling(1), *moves, counted=2 * forward_count),
        "sampling": phase(sampling(sweeps), *moves, counted=(sweeps + 1) * forward_count),
        "laplacian": phase(with_params(kinetic, in_chunks), *each, counted=kinetic_count),
        "ewald": phase(with_params(coulomb, in_chunks), *each, counted=ewald_count),
        "local_energy": phase(
            lambda p, c, s, r: local_energies(wavefunction, p, c, s, r, chunks.energy),
            *each,
            counted=kinetic_count + ewald_count,
        ),
        # In one chunk the loop over configurations is counted once, whatever their number.
        "gradients": phase(
            rows(chunks.gradient),
            params,
            systems,
            positions,
            counted=configurations * count(rows(walkers), params, systems, positions),
        ),
        "encode": phase(lambda p, s: jax.vmap(partial(wavefunction.encode, p))(s), params, systems),
    }

    energies = phases["local_energy"].run().astype(jnp.float64)
    residual = centre_per_configuration(energies)
    jacobian = centre_per_configuration(phases["gradients"].run())
    optimizer_state = optimizer.init(params)
    size = len(residual)
    phases["gram"] = phase(lambda o: o @ o.T, jacobian)
    gram = phases["gram"].run()
    # Cholesky factor and two triangular solves: library calls, whose operations XLA does not see.
    phases["solve"] = phase(
        partial(_solve, config.optimizer.damping), gram, residual, counted=size**3 / 3 + 2 * size**2, double=True
    )
    phases["natural_gradient"] = phase(
        lambda gradient, state, o, e: optimizer.update(gradient, state, gradient, jacobian=o, residual=e),
        params,
        optimizer_state,
        jacobian,
        residual,
    )
    parts = ("sampling", "local_energy", "gradients", "natural_gradient", "solve", "encode")
    phases["step"] = make_step_phase(case, state, clock, sum(phases[part].operations or 0.0 for part in parts))
    phases["prepare"] = Phase(lambda: make_system(case.configuration(), config.model))
    return phases


def operations(lowered: jax.stages.Lowered) -> float:
    """Floating-point operations by XLA's analysis of a program before it is optimised.

    Before, since on a CPU the optimised program calls libraries for matrix products, and a library call counts for
    nothing, then as now a factorisation. A loop's body is counted once; transcendental functions are left out.
    """
    analysis = lowered.cost_analysis()
    return float(cast(dict, analysis).get("flops", 0.0))


def _solve(damping: float, gram: jax.Array, residual: jax.Array) -> jax.Array:
    matrix = gram.astype(jnp.float64) + damping * jnp.eye(len(gram))
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix, lower=True), residual)


def make_step_phase(case: Case, state: State, clock: Callable[[], float], counted: float | None = None) -> Phase:
    """Compile the whole step; its walkers come from the host and go back there, as in the loop.

    Args:
        case: what is measured.
        state: what it starts from; stays as it is.
        clock: in seconds.
        counted: operations of all its parts.

    Returns:
        the phase; its `run` takes other systems than those of the state.
    """
    config, wavefunction = case.config, WaveFunction(case.config.model)
    optimizer = make_optimizer(config.optimizer)
    step = cast(
        jax.stages.Wrapped,
        make_step(
            wavefunction,
            optimizer,
            config.sampling,
            config.optimizer.clip_width,
            choose_chunks(case.number, config.model, config.memory),
        ),
    )
    own = jax.tree.map(jnp.array, state.params)
    learned = Learned(own, optimizer.init(own))
    walkers, widths, key = np.asarray(state.walkers), np.asarray(state.widths), jax.random.key(SEED)
    began = clock()
    compiled = step.lower(learned, state.systems, walkers, widths, key).compile()
    seconds = clock() - began

    def run(systems=state.systems):
        nonlocal learned, walkers, widths
        learned, moved, changed, report = compiled(learned, systems, walkers, widths, key)
        walkers, widths = np.asarray(moved), np.asarray(changed)
        return jax.device_get(report)

    return Phase(run, compiled, counted, False, seconds)
