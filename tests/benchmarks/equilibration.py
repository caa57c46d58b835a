"""What is left of the first spin patterns, and how the energy drifts, at the moment when measuring begins.

    python tests/benchmarks/equilibration.py [RUN] [--cells bcc-16-1.31 sc-8-2.7 ...] [--walkers 64]

RUN defaults to the shipped model. For every cell (PHASE-N-r_s) walkers are equilibrated twice: as the program does it
now, until their histories are flat, and as it did before, by 200 moves of all electrons from one spin pattern that all
walkers share. Then both are followed for a while by moves of the program, and the energies that they begin with are
compared with those of the last half of it, where both agree if all is well. Errors are standard errors over walkers.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.configuration import Configuration, make_configuration
from fnqs.hamiltonian import local_energies
from fnqs.precision import configure
from fnqs.sampling.equilibration import History, longest, spin_patterns
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.sampling.metropolis import adapt_widths, first_walkers, first_width, initial_walkers, metropolis
from fnqs.system import make_system, stack_systems
from fnqs_eval import load_model
from fnqs_eval.energies.equilibrate import SWEEPS
from fnqs_train.chunks import choose_chunks

BEFORE = 200
"""Moves that were made before."""

FOLLOWED = 20
"""Looks at the walkers afterwards, SWEEPS moves apart."""

CELLS = ("sc-8-2.7", "pa3-8-1.6", "pa3-8-2.2", "bcc-16-1.31", "bcc-16-1.8", "bcc-54-1.31")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="foundation")
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="PHASE-N-r_s")
    parser.add_argument("--walkers", type=int, default=64)
    options = parser.parse_args()
    configure()
    model = load_model(options.run)
    print("cell          moves          sweeps  seconds   memory        E - E_late (mHa per atom)", flush=True)
    for name in options.cells:
        measure(model, name, options.walkers)


def measure(model, name: str, walkers: int) -> None:
    """Equilibrate one cell in both ways and print a line of each."""
    configuration = cell(name)
    number = len(configuration.protons)
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(configuration, model.config.model)]))
    wavefunction, params = model.wavefunction, model.params
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(system)
    chunk = choose_chunks(number, model.config.model).energy
    protons = contexts.protons[0]

    def program(move):
        @jax.jit
        def look(positions, widths, key):
            positions, acceptance = move(wavefunction, params, contexts, positions, widths, key, SWEEPS)
            energies = local_energies(wavefunction, params, contexts, system, positions, chunk)[0] / number
            return positions, acceptance, spin_patterns(contexts, positions)[0], energies

        return look

    now, before = program(metropolis_with_exchange), program(metropolis)
    patterns_of = jax.jit(lambda r: spin_patterns(contexts, r)[0])
    width = jnp.full(1, first_width(number), jnp.float32)
    for title, look, start in (("as now", now, first_walkers), ("200 moves", before, initial_walkers)):
        positions, widths = start(protons, jax.random.key(0), walkers)[None].astype(jnp.float32), width
        first = np.asarray(patterns_of(positions))
        history, key, began, turn = History(float(np.mean(first**2))), jax.random.key(1), 0.0, 0
        jax.block_until_ready(look(positions, widths, key))  # compiled
        began = time.process_time()
        while True:
            key, own = jax.random.split(key)
            positions, acceptance, patterns, energies = look(positions, widths, own)
            widths, turn = adapt_widths(widths, acceptance, 0.5), turn + 1
            history.add(SWEEPS, np.mean(np.asarray(patterns) * first, axis=1), np.asarray(energies))
            verdict = history.verdict()
            if turn * SWEEPS >= (BEFORE if look is before else longest(number, radius(name))):
                break
            if look is now and verdict.settled:
                break
        seconds = time.process_time() - began
        memory, energy = np.mean(np.asarray(patterns) * first, axis=1) / np.mean(first**2), []
        jax.block_until_ready(now(positions, widths, key))
        for _ in range(FOLLOWED):
            key, own = jax.random.split(key)
            positions, _, _, energies = now(positions, widths, own)
            energy.append(np.asarray(energies))
        series = np.array(energy)
        # The first looks against the last ten, walker by walker: correlations in time are in the error.
        change = np.mean(series[:2], axis=0) - np.mean(series[FOLLOWED // 2 :], axis=0)
        print(
            f"{name:<13} {title:<12} {turn * SWEEPS:8d} {seconds:8.1f}   {_told(memory)}   {_told(1e3 * change)}",
            flush=True,
        )


def _told(values: np.ndarray) -> str:
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def radius(name: str) -> float:
    """r_s (bohr) of a cell by its name."""
    return float(name.split("-")[2])


def cell(name: str) -> Configuration:
    """Cubic cell of a name PHASE-N-r_s with PHASE sc, bcc or pa3 (molecules of 1.4 bohr along the diagonals)."""
    phase, number = name.split("-")[0], int(name.split("-")[1])
    basis = {
        "sc": np.zeros((1, 3)),
        "bcc": np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        "pa3": np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
    }[phase]
    each = 2 * len(basis) if phase == "pa3" else len(basis)
    along = round((number / each) ** (1 / 3))
    edge = (4 * np.pi / 3 * each) ** (1 / 3) * radius(name)
    if phase == "pa3":
        axes = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
        basis = np.concatenate([basis + 0.7 * axes / edge, basis - 0.7 * axes / edge])
    corners = np.stack(np.meshgrid(*[np.arange(along)] * 3), -1).reshape(-1, 1, 3)
    return make_configuration(along * edge * np.eye(3), ((corners + basis) * edge).reshape(-1, 3))


if __name__ == "__main__":
    main()
