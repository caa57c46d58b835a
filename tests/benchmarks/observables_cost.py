"""What a pass of all observables costs beside one of energies alone, in processor time.

    python tests/benchmarks/observables_cost.py [N] [WALKERS]

The shipped model on a disordered simple cubic cell at r_s = 1.6; moves, local energies and everything else of a
measurement, without compilation, equilibration and the preparation of deformed cells, which is given by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnqs.configuration import make_configuration
from fnqs.precision import configure
from fnqs.system import make_system, stack_systems
from fnqs_eval.energies.slots import MEASUREMENTS, make_measure
from fnqs_eval.model import load_model
from fnqs_eval.observables.deformations import deformed_contexts
from fnqs_eval.observables.program import TOGETHER, make_pass, make_reference_phases
from fnqs_train.chunks import choose_chunks

SWEEPS, RADIUS, PASSES = 10, 1.6, 2


def timed(function: Callable, *arguments) -> float:
    """Processor seconds of a call after one that compiles."""
    jax.block_until_ready(function(*arguments))
    began = time.process_time()
    for _ in range(PASSES):
        jax.block_until_ready(function(*arguments))
    return (time.process_time() - began) / PASSES


def main(number: int = 8, walkers: int = 64) -> None:
    """Measure and print."""
    configure()
    model = load_model("foundation")
    wavefunction, params, config = model.wavefunction, model.params, model.config.model
    edge = (4 * np.pi * number / 3) ** (1 / 3) * RADIUS
    side = round(number ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:number] / side
    generator = np.random.default_rng(0)
    configuration = make_configuration(edge * np.eye(3), edge * grid + generator.normal(scale=0.1, size=grid.shape))
    system = make_system(configuration, config)
    context = jax.jit(wavefunction.encode)(params, system)
    positions = configuration.protons + generator.normal(scale=0.4, size=(walkers, number, 3))
    electrons, width = jnp.asarray(positions, jnp.float32), jnp.asarray(0.3, jnp.float32)
    chunk = choose_chunks(number, config).energy
    mesh = Mesh(np.array(jax.local_devices()[:1]), ("slots",))
    measure = make_measure(wavefunction, SWEEPS, chunk, 1, mesh)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], context)
    state = (one, stack_systems([system]), np.asarray(electrons)[None], np.asarray(width)[None])
    rest = (np.zeros(1, np.uint32), np.ones(1, np.uint32), np.ones(1, np.int32))
    alone = timed(measure, params, *state, *rest) / MEASUREMENTS
    print(f"N = {number}, {walkers} walkers, {SWEEPS} moves between measurements, {jax.default_backend()}")
    print(f"energies alone: {alone:.3f} processor seconds a measurement")
    encode = jax.jit(jax.vmap(wavefunction.encode, (None, 0)))
    waves = np.random.default_rng(1).normal(size=(8 * number, 3))
    lists = (np.linspace(0, 0.5 * edge, 49), waves, waves, configuration.cell)
    for derivatives in ("none", "stress", "all"):
        deformed_contexts(encode, params, configuration, config, derivatives)
        began = time.process_time()
        deformation = deformed_contexts(encode, params, configuration, config, derivatives)
        prepared = time.process_time() - began
        deformed = None
        if deformation.contexts is not None:
            parts = (deformation.contexts, deformation.transforms, deformation.steps)
            deformed = (*parts, np.asarray(make_reference_phases(wavefunction)(params, *parts, electrons)))
        run = make_pass(wavefunction, chunk, SWEEPS, (16, 16, 16), True)
        cost = timed(run, params, context, system, deformed, lists, electrons, width, jax.random.key(0)) / TOGETHER
        print(
            f"observables, derivatives {derivatives}: {cost:.3f} a measurement, {cost / alone:.2f} times; "
            f"deformed cells prepared in {prepared:.2f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
