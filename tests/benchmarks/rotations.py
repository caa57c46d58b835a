"""Measure what of a trained wave function depends on its orientation and on the choice of lattice vectors.

    python tests/benchmarks/rotations.py runs/quickstart
    python tests/benchmarks/rotations.py runs/quickstart --configurations my.extxyz --frames 0:2

Cell, protons and electrons are turned together by random rotations: the architecture sees only invariants, so nothing
may change but the last digits. Then the same lattice is given by other vectors (a sheared cell), which the smooth
distances do not see; a difference in energy would be found by correlated sampling. Walkers are moved by Metropolis
before. Prints, for every configuration, the largest change of
log|psi| and of the local energy (Ha), in float32 as trained and in float64.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from fnqs.configuration import Configuration, make_configuration
from fnqs.hamiltonian import local_energy
from fnqs.sampling.metropolis import adapt_widths, initial_walkers, metropolis
from fnqs.system import System, make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_eval import load_model
from fnqs_train.config import recipe_path
from fnqs_train.loading import read_selected

SHEAR = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
"""Other vectors of the same lattice, as whole-number combinations of the given ones."""

ROUNDS, SWEEPS = 30, 10
"""Rounds of sweeps that the walkers are moved for."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--configurations", type=Path, help="default: the training set of the run")
    parser.add_argument("--frames")
    parser.add_argument("--rotations", type=int, default=5)
    parser.add_argument("--walkers", type=int, default=256)
    options = parser.parse_args()
    model = load_model(options.run)
    config, wavefunction, params = model.config, model.wavefunction, model.params
    if options.configurations:
        records = read_selected(options.configurations, options.frames)
    else:
        records = list(cached_dataset(recipe_path(config)))
    turns = Rotation.random(options.rotations, rng=np.random.default_rng(0)).as_matrix()
    print(f"{'configuration':20} {'precision':9} {'change':>9} {'log|psi|':>9} {'E_L (Ha)':>9} {'E/N (mHa)':>14}")
    for record in records:
        original = record.configuration
        walkers = sample(wavefunction, params, make_system(original, config.model), options.walkers)
        for dtype in (jnp.float32, jnp.float64):
            measure = partial(evaluate, wavefunction, jax.tree.map(lambda leaf, d=dtype: leaf.astype(d), params))
            here = measure(original, walkers)
            rotated = [measure(transformed(original, turn), walkers @ turn.T) for turn in turns]
            sheared = measure(transformed(original, np.eye(3), SHEAR), walkers)
            for name, others in (("rotated", rotated), ("sheared", [sheared])):
                moved = [[np.abs(y - x).max() for x, y in zip(here, other, strict=True)] for other in others]
                log, energy = np.max(moved, axis=0)
                change, error = energy_change(here, others[0], len(original.protons))
                told = f"{1e3 * change:+.4f} ± {1e3 * error:.4f}"
                print(f"{record.identifier:20} {dtype.__name__:9} {name:>9} {log:9.1e} {energy:9.1e} {told:>14}")


def transformed(configuration: Configuration, turn: np.ndarray, vectors: np.ndarray | None = None) -> Configuration:
    """Turn a configuration, or give its lattice by other vectors; the wave vector of the twist goes with it."""
    vectors = np.eye(3) if vectors is None else vectors
    cell = vectors @ np.asarray(configuration.cell) @ turn.T
    return make_configuration(cell, np.asarray(configuration.protons) @ turn.T, vectors @ configuration.twist)


def sample(wavefunction: WaveFunction, params: dict, system: System, number: int) -> np.ndarray:
    """Walkers (n, N, 3) in bohr, float64, distributed as psi^2."""
    systems = stack_systems([system])
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(systems)
    walkers = initial_walkers(contexts.protons[0], jax.random.key(0), number)[None].astype(jnp.float32)
    widths = jnp.full((1,), 0.3, jnp.float32)
    move = jax.jit(partial(metropolis, wavefunction, sweeps=SWEEPS))
    for key in jax.random.split(jax.random.key(1), ROUNDS):
        walkers, acceptance = move(params, contexts, walkers, widths, key)
        widths = adapt_widths(widths, acceptance, 0.5)
    return np.asarray(walkers[0], np.float64)


def evaluate(
    wavefunction: WaveFunction, params: dict, configuration: Configuration, walkers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log|psi| (n,) and the real local energy (n,) in Ha of walkers (n, N, 3), in the precision of the parameters."""
    system = make_system(configuration, wavefunction.config)
    own = jnp.asarray(walkers).astype(jax.tree.leaves(params)[0].dtype)
    logs, energies = _evaluate(wavefunction, params, system, own)
    return np.asarray(logs, np.float64), np.real(np.asarray(energies)).astype(np.float64)


@partial(jax.jit, static_argnums=0)
def _evaluate(wavefunction: WaveFunction, params: dict, system: System, walkers: jax.Array):
    context = wavefunction.encode(params, system)

    def one(electrons):
        log = wavefunction.log_psi(params, context, electrons)[1]
        return log, local_energy(wavefunction, params, context, system, electrons)

    return jax.lax.map(one, walkers, batch_size=32)


def energy_change(
    here: tuple[np.ndarray, np.ndarray], there: tuple[np.ndarray, np.ndarray], number: int
) -> tuple[float, float]:
    """Difference of the two energies per atom and its standard error, Ha, with the walkers of the first reweighted."""
    weights = np.exp(2 * (there[0] - here[0] - np.mean(there[0] - here[0])))
    weights /= np.mean(weights)
    mean = np.mean(weights * there[1])
    residuals = weights * (there[1] - mean) - (here[1] - np.mean(here[1]))
    error = np.std(residuals) / np.sqrt(len(residuals))
    return float(mean - np.mean(here[1])) / number, float(error) / number


if __name__ == "__main__":
    main()
