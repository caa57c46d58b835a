"""Periodic geometry of any triclinic cell: volumes, reciprocal vectors, exact distances."""

from __future__ import annotations

import numpy as np
from ase.geometry import minkowski_reduce

PAIRS_AT_ONCE = 20_000
"""Pairs whose images are compared together, so that memory stays small (20 MB) for any N."""


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
    number = len(points)
    # Of the vectors of a reduced basis, the first is the shortest of the lattice.
    shortest = float(np.linalg.norm(cell, axis=1).min())
    result = np.zeros((number, number))
    np.fill_diagonal(result, shortest)
    first, second = np.triu_indices(number, 1)
    fractional = points @ np.linalg.inv(cell)
    fractional = fractional[first] - fractional[second]
    difference = (fractional - np.round(fractional)) @ cell
    squares = _squared_lengths(difference)
    # Nothing is nearer than half of the shortest lattice vector; the others look at their neighbouring images.
    far = np.flatnonzero(~(squares <= (shortest / 2) ** 2))
    if len(far):
        # An image at s_i lies at least (|s_i| - 1/2) heights away; written so that NaN gives the widest search.
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        reach = np.sqrt(np.nan_to_num(squares[far], nan=np.inf).max()) / heights + 0.5
        ranges = [np.arange(-int(n), int(n) + 1) for n in np.minimum(reach, 2)]
        shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3) @ cell
        for start in range(0, len(far), PAIRS_AT_ONCE):
            chosen = far[start : start + PAIRS_AT_ONCE]
            nearest = np.argmin(2 * difference[chosen] @ shifts.T + _squared_lengths(shifts), axis=1)
            squares[chosen] = _squared_lengths(difference[chosen] + shifts[nearest])
    result[first, second] = result[second, first] = np.sqrt(squares)
    return result


def _squared_lengths(vectors: np.ndarray) -> np.ndarray:
    """Squared lengths (M,) of vectors (M, 3)."""
    return np.einsum("ij,ij->i", vectors, vectors)


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
