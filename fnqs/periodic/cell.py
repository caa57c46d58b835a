"""Periodic geometry of any triclinic cell: volumes, reciprocal vectors, exact distances."""

from __future__ import annotations

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


def shortest_wave_vector(cell: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Return the shortest wave vector (3,), 1/bohr, that has the phases of a twist; of equally short ones the given.

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        twist: (3,) fractions of the reciprocal lattice vectors.
    """
    given = twist @ reciprocal_vectors(cell)
    if not given.any():
        return given
    reciprocal = np.asarray(minkowski_reduce(reciprocal_vectors(cell))[0])
    nearest = np.round(given @ np.linalg.inv(reciprocal))
    shifts = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    candidates = np.concatenate([given[None], given - (nearest + shifts) @ reciprocal])
    squares = np.sum(candidates**2, axis=1)
    return candidates[np.flatnonzero(squares <= squares.min() + 1e-9 * np.sum(reciprocal[0] ** 2))[0]]
