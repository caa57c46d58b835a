"""The Configuration: a periodic cell of protons with a twist, the input of everything else."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from ase.geometry import minkowski_reduce
from jaxtyping import Float

from fnqs.errors import InputError
from fnqs.periodic.cell import cell_volume, minimum_image_distances

SHORTEST_BOND = 0.3
"""Two protons closer than this (bohr) are taken for a mistake in the input."""

THINNEST_CELL = 0.25
"""Smallest accepted ratio of a cell's thinnest slab to the cube root of its volume."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Configuration:
    """Protons in a periodic cell, with the twist of the electrons' boundary condition.

    Arrays may carry leading batch axes; one configuration has the shapes below.

    Attributes:
        cell: (3, 3) lattice vectors as rows, bohr.
        protons: (N, 3) Cartesian positions, bohr, anywhere in space.
        twist: (3,) fractions of the reciprocal lattice vectors, each in (-1/2, 1/2].
    """

    cell: jax.Array | np.ndarray
    protons: jax.Array | np.ndarray
    twist: jax.Array | np.ndarray


def make_configuration(cell, protons, twist=(0.0, 0.0, 0.0)) -> Configuration:
    """Check and build one configuration in float64 on the host.

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        protons: (N, 3) Cartesian positions, bohr.
        twist: (3,) fractions of the reciprocal lattice vectors; folded into (-1/2, 1/2].

    Raises:
        InputError: for any of the faults of `find_fault`.
    """
    configuration = Configuration(
        cell=np.array(cell, dtype=np.float64),
        protons=np.array(protons, dtype=np.float64),
        twist=fold_twist(np.array(twist, dtype=np.float64)),
    )
    fault = find_fault(configuration)
    if fault:
        raise InputError(fault)
    return configuration


def find_fault(configuration: Configuration) -> str | None:
    """Say in one clause what makes a configuration unusable, or None if it is valid.

    Checked: shapes, finite numbers, an even number N >= 2 of protons, a cell that is neither
    flat nor too thin for the smooth periodic distance, no two protons closer than SHORTEST_BOND.
    """
    cell, protons, twist = (np.asarray(x) for x in (configuration.cell, configuration.protons, configuration.twist))
    if cell.shape != (3, 3) or protons.ndim != 2 or protons.shape[1] != 3 or twist.shape != (3,):
        return (
            f"the shapes are cell {cell.shape}, protons {protons.shape}, twist {twist.shape}, not (3, 3), (N, 3), (3,)"
        )
    for name, values in (("cell", cell), ("proton positions", protons), ("twist", twist)):
        if not np.all(np.isfinite(values)):
            return f"the {name} contain NaN or infinity"
    n_atoms = len(protons)
    if n_atoms < 2 or n_atoms % 2:
        return f"N = {n_atoms} protons; fnqs needs an even number, two or more, for an unpolarised neutral cell"
    if fault := find_cell_fault(cell):
        return fault
    distances = minimum_image_distances(cell, protons)
    closest = distances.min()
    if closest < SHORTEST_BOND:
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        return (
            f"protons {i} and {j} are {closest:.3f} bohr apart, closer than {SHORTEST_BOND} bohr (are the units right?)"
        )
    return None


def find_cell_fault(cell: Float[np.ndarray, "3 3"]) -> str | None:
    """Say in one clause why a cell (3, 3), bohr, is flat or too thin for the smooth periodic distance, or None."""
    volume = abs(cell_volume(cell))
    lengths = np.linalg.norm(cell, axis=1)
    if volume <= 1e-8 * np.prod(np.maximum(lengths, 1e-30)):
        return "there is no cell: the lattice vectors are missing or lie in a plane"
    short = np.asarray(minkowski_reduce(cell)[0])  # only the lattice counts, not the vectors it is given in
    heights = volume / np.array([np.linalg.norm(np.cross(short[(i + 1) % 3], short[(i + 2) % 3])) for i in range(3)])
    if heights.min() < THINNEST_CELL * volume ** (1 / 3):
        return (
            f"the cell is too thin: its smallest height {heights.min():.3f} bohr is under {THINNEST_CELL} of the "
            f"cube root of its volume, {volume ** (1 / 3):.3f} bohr; give a more compact supercell"
        )
    return None


def find_twist_fault(twist: Float[np.ndarray, 3]) -> str | None:
    """Say in one clause why fractions (3,) that someone gives are no twist, or None; folding hides wrong units."""
    if np.all((twist > -0.5) & (twist < 1)):
        return None
    return (
        f"the twist {', '.join(f'{x:g}' for x in twist)} is out of range: fractions of the reciprocal lattice vectors "
        f"lie above -0.5 and below 1"
    )


def fold_twist(twist: np.ndarray) -> np.ndarray:
    """Fold twist fractions into (-1/2, 1/2]; NaN stays NaN."""
    folded = 0.5 - np.mod(0.5 - twist, 1.0)
    return np.where(np.abs(folded) < 1e-12, 0.0, folded)


def wigner_seitz_radius(configuration: Configuration) -> Float[np.ndarray, ...] | np.floating:
    """r_s = (3 volume / 4 pi N)^(1/3) in bohr, over any leading batch axes, on the host in float64."""
    n_atoms = np.asarray(configuration.protons).shape[-2]
    volume = np.abs(cell_volume(np.asarray(configuration.cell)))
    return (3 * volume / (4 * np.pi * n_atoms)) ** (1 / 3)
