"""How often two electrons should be exchanged: correlations of energy and spin pattern by the share of exchanges.

    python tests/benchmarks/exchange_ratio.py [RUN] [--cells sc-8-1.6 ...] [--every 2 3 5 9 0] [--walkers 64]

RUN defaults to the shipped model. A turn moves all electrons or exchanges two, for the same cost of one log psi of
every walker; one in `every` is an exchange, none where that is 0. For every cell (PHASE-N-r_s) and share the table
has milliseconds of processor time a turn, integrated autocorrelation times of the local energy and of the spin pattern
in turns, and both times in milliseconds: what is least is best. Standard errors are from a jackknife over walkers.
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
from fnqs.sampling.equilibration import spin_patterns
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.sampling.metropolis import adapt_widths, first_walkers, first_width, metropolis
from fnqs.system import make_system, stack_systems
from fnqs_eval import load_model
from fnqs_train.chunks import choose_chunks

CELLS = ("sc-8-1.6", "pa3-8-2.2", "bcc-54-1.4")
SETTLING = 20
"""Calls of BETWEEN turns before anything is recorded, of each share from where the one before has ended."""

WINDOW = 5.0
"""Autocorrelation times over which correlations are summed (Sokal)."""

GROUPS = 8
"""Of walkers, for the jackknife."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="foundation")
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="PHASE-N-r_s")
    parser.add_argument("--every", nargs="+", type=int, default=(2, 3, 5, 9, 0))
    parser.add_argument("--walkers", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--between", type=int, default=5, help="turns between two records")
    options = parser.parse_args()
    configure()
    model = load_model(options.run)
    print("cell          every  width  accepted  ms/turn    energy (turns)     spins (turns)   energy (ms)  spins (ms)")
    for name in options.cells:
        measure(model, name, options)


def measure(model, name: str, options: argparse.Namespace) -> None:
    """Print a line for every share of exchanges in one cell."""
    configuration = cell(name)
    number, walkers = len(configuration.protons), options.walkers
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(configuration, model.config.model)]))
    wavefunction, params = model.wavefunction, model.params
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(system)
    chunk = choose_chunks(number, model.config.model).energy
    positions = first_walkers(contexts.protons[0], jax.random.key(0), walkers)[None].astype(jnp.float32)
    widths, settling = jnp.full(1, first_width(number), jnp.float32), 3 * SETTLING

    @jax.jit
    def look(positions):
        energies = local_energies(wavefunction, params, contexts, system, positions, chunk)[0]
        return jnp.real(energies) / number, spin_patterns(contexts, positions)[0]

    @jax.jit
    def exchanging(positions, widths, key, every):
        arguments = (wavefunction, params, contexts, positions, widths, key, options.between)
        return metropolis_with_exchange(*arguments, every=every)

    @jax.jit
    def moving(positions, widths, key):
        return metropolis(wavefunction, params, contexts, positions, widths, key, options.between)

    for every in options.every:
        turns = partial(exchanging, every=np.int32(every)) if every else moving
        jax.block_until_ready(turns(positions, widths, jax.random.key(1)))  # compiled
        accepted = jnp.zeros(1)
        for key in jax.random.split(jax.random.key(every), settling):
            positions, accepted = turns(positions, widths, key)
            widths = adapt_widths(widths, accepted, 0.5)
        settling, spent, energies, patterns, acceptance = SETTLING, 0.0, [], [], 0.0
        for key in jax.random.split(jax.random.key(100 + every), options.records):
            began = time.process_time()
            positions, accepted = jax.block_until_ready(turns(positions, widths, key))
            spent += time.process_time() - began
            acceptance += float(accepted[0]) / options.records
            for series, values in zip((energies, patterns), look(positions), strict=True):
                series.append(np.asarray(values, np.float64))
        cost = 1e3 * spent / options.records / options.between
        energy = options.between * _jackknife(_cut(np.array(energies))[:, :, None], centred=True)
        spins = options.between * _jackknife(np.array(patterns), centred=False)
        print(
            f"{name:<13} {every:5d}  {float(widths[0]):5.3f}  {acceptance:8.2f}  {cost:7.2f}  "
            f"{energy[0]:8.1f} ± {energy[1]:<5.1f}  {spins[0]:8.1f} ± {spins[1]:<5.1f}  "
            f"{cost * energy[0]:10.0f}  {cost * spins[0]:10.0f}",
            flush=True,
        )


def _jackknife(series: np.ndarray, *, centred: bool) -> np.ndarray:
    """Integrated autocorrelation time of series (T, walkers, components) with its standard error, in steps (2,)."""
    whole = autocorrelation_time(series, centred=centred)
    left = [
        autocorrelation_time(np.delete(series, np.s_[group::GROUPS], axis=1), centred=centred)
        for group in range(GROUPS)
    ]
    return np.array([whole, np.sqrt((GROUPS - 1) * np.var(left))])


def autocorrelation_time(series: np.ndarray, *, centred: bool) -> float:
    """Half plus the sum of the correlations up to WINDOW times the result.

    Args:
        series: (T, walkers, components), averaged over the last two.
        centred: whether the mean is not known to vanish and has to be taken off.
    """
    values = series - np.mean(series) if centred else series
    padded = np.fft.rfft(values, 2 * len(values), axis=0)
    sums = np.fft.irfft(np.sum(np.abs(padded) ** 2, axis=(1, 2)))[: len(values)]
    correlations = sums / (len(values) - np.arange(len(values)))
    times = 0.5 + np.concatenate([[0.0], np.cumsum(correlations[1:] / correlations[0])])
    inside = np.arange(len(times)) >= WINDOW * times
    return float(times[np.argmax(inside)] if inside.any() else times[-1])


def _cut(values: np.ndarray, width: float = 5.0) -> np.ndarray:
    """Cut values off at so many mean absolute deviations from the median."""
    centre = np.median(values)
    spread = width * np.mean(np.abs(values - centre))
    return np.clip(values, centre - spread, centre + spread)


if __name__ == "__main__":
    main()
