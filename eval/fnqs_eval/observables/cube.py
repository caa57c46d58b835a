"""Electron densities as cube files, which ASE and VMD read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io.cube import write_cube

from fnqs.cli.files import atomic_write
from fnqs_eval.observables.sample import Samples


def write_density(path: Path, samples: Samples, density: np.ndarray, what: str) -> None:
    """Write a density in 1/bohr^3 at the centres of the voxels, in the reduced cell.

    Args:
        path: the file.
        samples: with cell and voxels.
        density: (n_1, n_2, n_3).
        what: for the comment line.

    Raises:
        OSError: the file cannot be written.
    """
    cell = samples.cell * units.Bohr
    atoms = Atoms(
        numbers=np.ones(samples.record.n_atoms, int),
        positions=np.asarray(samples.record.configuration.protons) * units.Bohr,
        cell=cell,
        pbc=True,
    )
    atoms.wrap()
    origin = 0.5 * np.sum(cell / np.array(samples.shape)[:, None], axis=0)
    comment = f"fnqs, {what} in 1/bohr^3, {samples.record.identifier}"
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        write_cube(file, atoms, density, origin=origin, comment=comment)
