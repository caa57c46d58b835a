"""Periodic geometry of any triclinic cell: volumes, reciprocal vectors, exact and smooth distances."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import minkowski_reduce


def cell_volume(cell: np.ndarray) -> np.ndarray:
    """Signed volume (bohr^3) of cells (..., 3, 3) with lattice vectors as rows."""
    return np.linalg.det(cell)


def reciprocal_vectors(cell: np.ndarray) -> np.ndarray:
    """Reciprocal vectors as rows (..., 3, 3), 1/bohr, with a_i . b_j = 2 pi delta_ij."""
    return 2 * np.pi * np.swapaxes(np.linalg.inv(cell), -1, -2)


def minimum_image_distances(cell: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Shortest distance between every two points, own images included on the diagonal.

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        points: (N, 3) Cartesian, bohr.

    Returns:
        (N, N) distances in bohr; entry (i, i) is the distance to the nearest image of i itself.
    """
    cell = np.asarray(minkowski_reduce(np.asarray(cell, np.float64))[0])
    fractional = points @ np.linalg.inv(cell)
    difference = fractional[:, None] - fractional[None]
    difference -= np.round(difference)
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    result = np.full(difference.shape[:2], np.inf)
    diagonal = np.eye(len(points), dtype=bool)
    for shift in shifts:
        distance = np.linalg.norm((difference + shift) @ cell, axis=-1)
        if not shift.any():
            distance = np.where(diagonal, np.inf, distance)
        result = np.minimum(result, distance)
    return result


def smooth_displacement(cell: jax.Array, displacement: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Periodic, everywhere smooth stand-ins for the squared length and the vector of a displacement.

    With phi_a = 2 pi times the fractional coordinate along lattice vector a, the square is
    (|sum_a a sin phi_a|^2 + |sum_a a (1 - cos phi_a)|^2) / 4 pi^2 and the vector sum_a a sin phi_a / 2 pi.
    Both equal the true ones for small displacements and are zero only at lattice vectors (the vector also
    at half ones).

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        displacement: (..., 3) Cartesian, bohr.

    Returns:
        squared length (...,) in bohr^2 and vector (..., 3) in bohr.
    """
    phase = 2 * jnp.pi * displacement @ jnp.linalg.inv(cell)
    odd = jnp.sin(phase) @ cell / (2 * jnp.pi)
    even = (1 - jnp.cos(phase)) @ cell / (2 * jnp.pi)
    return jnp.sum(odd**2, -1) + jnp.sum(even**2, -1), odd
