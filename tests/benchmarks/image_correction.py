"""How much the periodic images of a molecule or of a chain change its energy, measured on a trained checkpoint.

Ewald summation repeats the electrons in step with those of the cell. For an isolated neutral molecule in a cubic
cell of volume V the leading effect is -(2 pi / 3 V) <D^2>, with D the instantaneous dipole; between parallel chains it
is -(pi / V) <D^2> across them. It belongs to the exact energy of the periodic cell, and is absent from tables of
isolated molecules and from those of chains in a wide vacuum. Here the whole difference of the two Coulomb energies
is averaged over the walkers, dipoles and all higher multipoles, and added to the local energies: first-order
perturbation theory. Directions in which protons follow each other within GAP bohr stay periodic.

    python tests/benchmarks/image_correction.py runs/h2 configs/datasets/h2.toml
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from cell_samples import energies_and

from fnqs.cli.notation import with_error
from fnqs.ewald import ewald_energy, make_ewald
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_data.store.record import Record
from fnqs_eval import load_model
from fnqs_eval.energies.statistics import Estimate, reblocked_error

WALKERS = 1024

GAP = 6.0
"""Protons whose periodic images come closer than this (bohr) along an axis form a chain along it."""

REPEATS = 100
"""Cells summed on either side along a chain; the rest is below 1e-6 Ha."""


def main(run: str, recipe: str, measurements: str = "200") -> None:
    """Print energy, correction and corrected energy of every configuration, Ha for the whole cell."""
    model = load_model(run)
    for record in cached_dataset(Path(recipe)):
        estimates = measure(model.wavefunction, model.params, record, int(measurements))
        print(f"{record.identifier}, twist {np.asarray(record.configuration.twist)}")
        names = ("E of the periodic cell", "change without images", "E without images")
        for name, estimate in zip(names, estimates, strict=True):
            print(f"  {name:22} {with_error(estimate.mean, estimate.error)} Ha in total", flush=True)


def measure(
    wavefunction: WaveFunction, params: dict, record: Record, measurements: int
) -> tuple[Estimate, Estimate, Estimate]:
    """Sample one configuration: energy of the periodic cell, change, and energy without images, Ha in total."""
    cell, protons = np.asarray(record.configuration.cell), np.asarray(record.configuration.protons)
    axes, ewald = chain_axes(cell, protons), make_ewald(record.configuration)

    def without_images(_, electrons):
        electrons = electrons.astype(jnp.float64)
        return coulomb_energy(protons, cell, axes, electrons) - ewald_energy(ewald, electrons)

    periodic, change = energies_and(
        without_images, wavefunction, params, record, walkers=WALKERS, measurements=measurements
    )
    return reblocked_error(periodic), reblocked_error(change), reblocked_error(periodic + change)


def chain_axes(cell: np.ndarray, protons: np.ndarray) -> tuple[int, ...]:
    """Lattice vectors along which the protons go on from cell to cell."""
    fractional = protons @ np.linalg.inv(cell)
    spread = fractional.max(0) - fractional.min(0)
    return tuple(axis for axis in range(3) if (1 - spread[axis]) * np.linalg.norm(cell[axis]) < GAP)


def coulomb_energy(protons: np.ndarray, cell: np.ndarray, axes: tuple[int, ...], electrons: jax.Array) -> jax.Array:
    """Coulomb energy (Ha) of electrons (N, 3) and protons repeated along one axis at most, and nowhere else."""
    if len(axes) > 1:
        raise SystemExit("the protons form a layer or a solid: there is no system without images to compare with")
    offset = (electrons - protons.mean(0)) @ np.linalg.inv(cell)
    electrons = (offset - jnp.round(offset)) @ cell + protons.mean(0)
    points = jnp.concatenate([electrons, protons])
    charges = np.repeat([-1.0, 1.0], len(protons))
    shifts = np.arange(-REPEATS, REPEATS + 1)[:, None] * cell[axes[0]] if axes else np.zeros((1, 3))
    first, second = np.triu_indices(len(points), 1)
    pairs = (points[first] - points[second])[:, None] + shifts
    energy = jnp.sum((charges[first] * charges[second])[:, None] / jnp.linalg.norm(pairs, axis=-1))
    lengths = np.linalg.norm(shifts, axis=1)
    return energy + 0.5 * len(points) * np.sum(1 / lengths[lengths > 0])


if __name__ == "__main__":
    main(*sys.argv[1:])
