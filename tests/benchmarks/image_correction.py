"""How much the periodic images of an isolated molecule change its energy, measured on a trained checkpoint.

Ewald summation repeats the electrons in step with those of the cell. For an isolated neutral molecule in a cubic
cell of volume V the leading effect is -(2 pi / 3 V) <D^2>, with D the instantaneous dipole: expanding the Ewald pair
potential, v(r) = 1/r + const + 2 pi r^2 / 3 V + ..., and summing over all pairs of charges. It is part of the exact
energy of the periodic cell, and absent from tables of isolated molecules; adding (2 pi / 3 V) <D^2> removes it.

    python tests/benchmarks/image_correction.py runs/h2 configs/datasets/h2.toml
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.local_energy import local_energies
from fnqs.notation import with_error
from fnqs.precision import configure
from fnqs.sampling import metropolis
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_eval.statistics import reblocked_error
from fnqs_train.checkpoint import resolve_checkpoint
from fnqs_train.commands import load_params
from fnqs_train.config import SamplingConfig, load_config
from fnqs_train.step import make_equilibration

WALKERS, MEASUREMENTS, SWEEPS = 1024, 300, 10


def main(run: str, recipe: str) -> None:
    """Print total energy, dipole fluctuation, correction and corrected energy in Ha."""
    configure()
    checkpoint = resolve_checkpoint(run)
    config = load_config(checkpoint.run_folder)
    params = load_params(checkpoint, config)
    record = cached_dataset(Path(recipe))[0]
    wavefunction = WaveFunction(config.model)
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(record.configuration, config.model)]))
    protons, number = np.asarray(record.configuration.protons), record.number
    volume = abs(np.linalg.det(np.asarray(record.configuration.cell)))
    walkers = jnp.zeros((1, WALKERS, number, 3), jnp.float32)
    equilibrate = make_equilibration(wavefunction, SamplingConfig(equilibration_sweeps=1000))
    walkers, widths, _ = equilibrate(
        params, system, walkers, jnp.full((1,), 0.3, jnp.float32), jnp.ones((1,), bool), jax.random.key(1)
    )

    @jax.jit
    def measure(walkers, key):
        contexts = jax.vmap(partial(wavefunction.encode, params))(system)
        walkers, _ = metropolis(wavefunction, params, contexts, walkers, widths, key, SWEEPS)
        return walkers, local_energies(wavefunction, params, contexts, system, walkers, 128)[0]

    energies, squares = [], []
    inverse = np.linalg.inv(np.asarray(record.configuration.cell))
    for step in range(MEASUREMENTS):
        walkers, energy = measure(walkers, jax.random.key(step + 2))
        offset = np.asarray(walkers[0], np.float64) - protons.mean(0)
        offset -= np.round(offset @ inverse) @ np.asarray(record.configuration.cell)
        energies.append(np.asarray(energy, np.float64))
        squares.append(np.sum(offset.sum(1) ** 2, axis=-1))
    factor = 2 * np.pi / (3 * volume)
    energy, square = reblocked_error(np.array(energies)), reblocked_error(np.array(squares))
    corrected = reblocked_error(np.array(energies) + factor * np.array(squares))
    print(f"E of the periodic cell     {with_error(energy.mean, energy.error)} Ha")
    print(f"<D^2>                      {with_error(square.mean, square.error)} bohr^2")
    print(f"(2 pi / 3 V) <D^2>         {with_error(factor * square.mean, factor * square.error)} Ha")
    print(f"E without periodic images  {with_error(corrected.mean, corrected.error)} Ha")


if __name__ == "__main__":
    main(*sys.argv[1:3])
