"""Whether energies that a training counts are those of equilibrium: new configurations against 1,000 further sweeps.

    python tests/benchmarks/training_bias.py [RUN] [--cells sc-8-2.7 ...] [--walkers 6] [--copies 40] [--repeats 8]

RUN defaults to the shipped model. Copies of one cell (PHASE-N-r_s) are equilibrated as a training does it with the
configurations of a step, with as many walkers each and its `sweeps` besides; their mean energy, over some repeats, is
compared with that of the same walkers from the middle of the further sweeps on. Standard errors are over copies.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from equilibration import cell

from fnqs.hamiltonian import local_energies
from fnqs.precision import configure
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.system import make_system, stack_systems
from fnqs_eval import load_model
from fnqs_train.chunks import choose_chunks
from fnqs_train.config import SamplingConfig
from fnqs_train.equilibration import make_equilibration
from fnqs_train.walkers import START_WIDTH

CELLS = ("sc-8-2.7", "sc-8-1.6", "pa3-8-2.2")
FURTHER, LOOKS = 1000, 20
"""Sweeps afterwards, and local energies taken of every walker in the second half of them."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="foundation")
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="PHASE-N-r_s")
    parser.add_argument("--walkers", type=int, default=6)
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--sweeps", type=int, default=8, help="of the step, after equilibration")
    parser.add_argument("--equilibration", type=int, default=30, help="sweeps at least")
    options = parser.parse_args()
    configure()
    model = load_model(options.run)
    print("cell        settled  seconds  E at training (Ha)     E late (Ha)            bias (mHa per atom)", flush=True)
    for name in options.cells:
        measure(model, name, options)


def measure(model, name: str, options: argparse.Namespace) -> None:
    """Print the line of one cell."""
    configuration = cell(name)
    number, copies = len(configuration.protons), options.copies
    one = make_system(configuration, model.config.model)
    systems = jax.tree.map(jnp.asarray, stack_systems([one] * copies))
    wavefunction, params = model.wavefunction, model.params
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(systems)
    chunk = choose_chunks(number, model.config.model).energy
    sampling = SamplingConfig(
        walkers_per_configuration=options.walkers, equilibration_sweeps=options.equilibration, sweeps=options.sweeps
    )
    equilibrate = make_equilibration(wavefunction, sampling)

    @jax.jit
    def move(walkers, widths, key, sweeps):
        return metropolis_with_exchange(wavefunction, params, contexts, walkers, widths, key, sweeps)[0]

    @jax.jit
    def energies_of(walkers):
        energies = jnp.real(local_energies(wavefunction, params, contexts, systems, walkers, chunk)) / number
        return jnp.mean(energies, axis=1)

    empty = jnp.zeros((copies, options.walkers, number, 3), jnp.float32)
    start, fresh = jnp.full(copies, START_WIDTH, jnp.float32), np.ones(copies, bool)
    walkers = widths = empty
    first, settled, began = [], [], time.process_time()
    for key in jax.random.split(jax.random.key(0), options.repeats):
        walkers, widths, _, reached = equilibrate(params, systems, empty, start, fresh, ~fresh, key)
        settled.append(np.mean(reached))
        walkers = move(walkers, widths, jax.random.fold_in(key, 1), np.int32(options.sweeps))
        first.append(np.asarray(energies_of(walkers)))
    seconds = (time.process_time() - began) / options.repeats
    walkers = move(walkers, widths, jax.random.key(1), np.int32(FURTHER // 2))
    late = []
    for key in jax.random.split(jax.random.key(2), LOOKS):
        walkers = move(walkers, widths, key, np.int32(FURTHER // 2 // LOOKS))
        late.append(np.asarray(energies_of(walkers)))
    (before, error), (after, after_error) = _mean(np.concatenate(first)), _mean(np.mean(late, axis=0))
    bias = f"{1e3 * (before - after):+.2f} ± {1e3 * np.hypot(error, after_error):.2f}"
    print(
        f"{name:<11} {np.mean(settled):7.2f}  {seconds:7.1f}  {before:.5f} ± {error:.5f}   "
        f"{after:.5f} ± {after_error:.5f}   {bias}",
        flush=True,
    )


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
