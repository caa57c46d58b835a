"""Which move decorrelates the local energy faster per second: plain Metropolis or Langevin, by acceptance aimed at.

    python tests/benchmarks/decorrelation.py runs/bcc_n16 [WALKERS]

Takes a trained run and the first configuration of its data. For each move and acceptance: the width is adapted, the
local energy is recorded once in a few sweeps, and the table gives milliseconds a sweep, the integrated
autocorrelation time of the local energy in sweeps, and independent samples per second (sampling only; the local
energies are not timed). Errors are those of the autocorrelation time, from that of the reblocked error bar.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.hamiltonian import local_energies
from fnqs.sampling.metropolis import adapt_widths
from fnqs.system import make_system, stack_systems
from fnqs_data.generate.build import cached_dataset
from fnqs_eval import load_model
from fnqs_eval.energies.statistics import reblocked_error
from fnqs_train.chunks import choose_chunks
from fnqs_train.config import SamplingConfig, recipe_path
from fnqs_train.equilibration import MOVES, make_equilibration

TARGETS = (0.3, 0.5, 0.7)
RECORDS, BETWEEN = 400, 4
"""Local energies recorded, and sweeps between two of them."""


def main(run: str, number: int = 64) -> None:
    """Measure and print."""
    model = load_model(run)
    config, wavefunction, params = model.config, model.wavefunction, model.params
    record = cached_dataset(recipe_path(config))[0]
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(record.configuration, config.model)]))
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(system)
    chunk = choose_chunks(record.n_atoms, config.model).energy
    start = jnp.zeros((1, number, record.n_atoms, 3), jnp.float32)
    equilibrate = make_equilibration(wavefunction, SamplingConfig(equilibration_sweeps=300))
    start, width, *_ = equilibrate(
        params, system, start, jnp.full(1, 0.3, jnp.float32), np.ones(1, bool), np.zeros(1, bool), jax.random.key(1)
    )
    print(f"{record.identifier}: N = {record.n_atoms}, {number} walkers, {run}")
    print("move        acceptance  width (bohr)  ms/sweep  autocorrelation (sweeps)  independent samples/s")
    for name, move in MOVES.items():

        def sweeps_of(count, move=move):
            return jax.jit(lambda r, w, k: move(wavefunction, params, contexts, r, w, k, count))

        @jax.jit
        def record_one(walkers, widths, key, move=move):
            walkers, acceptance = move(wavefunction, params, contexts, walkers, widths, key, BETWEEN)
            return walkers, local_energies(wavefunction, params, contexts, system, walkers, chunk)[0], acceptance

        short, long = sweeps_of(5), sweeps_of(50)
        for target in TARGETS:
            walkers, widths = start, width
            for key in jax.random.split(jax.random.key(2), 60):
                walkers, acceptance = short(walkers, widths, key)
                widths = adapt_widths(widths, acceptance, target)
            jax.block_until_ready(long(walkers, widths, jax.random.key(3)))
            clock = []
            for key in jax.random.split(jax.random.key(4), 5):
                began = time.perf_counter()
                walkers, acceptance = jax.block_until_ready(long(walkers, widths, key))
                clock.append((time.perf_counter() - began) / 50)
            energies = []
            for key in jax.random.split(jax.random.key(5), RECORDS):
                walkers, energy, acceptance = record_one(walkers, widths, key)
                energies.append(np.asarray(energy))
            series = np.array(energies)
            centre, spread = np.median(series), np.abs(series - np.median(series)).mean()
            estimate = reblocked_error(np.clip(series, centre - 5 * spread, centre + 5 * spread))
            sweeps = 2 * estimate.autocorrelation_time * BETWEEN
            share = 2 * estimate.error_of_error / estimate.error
            seconds = float(np.median(clock))
            rate = number / (sweeps * seconds)
            print(
                f"{name:<11} {float(acceptance[0]):10.2f}  {float(widths[0]):12.3f}  {1e3 * seconds:8.2f}  "
                f"{sweeps:15.1f} ± {share * sweeps:<6.1f}  {rate:12.1f} ± {share * rate:.1f}"
            )


if __name__ == "__main__":
    main(sys.argv[1], *(int(argument) for argument in sys.argv[2:]))
