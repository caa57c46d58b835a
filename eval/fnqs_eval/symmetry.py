"""Point groups of crystals, as far as they are symmetries of the wave function, and the twists they make equal.

A point-group operation of a crystal turns a state of twist theta into one of another twist with the same energy. For
the exact state this holds for all operations. The wave function sees the lattice through the vectors it is given
in: its smooth distances are functions of the fractional coordinates. Rotated together with them it is unchanged, and
if the rotated lattice vectors are the given ones in another order, up to signs that leave the smooth distances alone,
the energies are equal for any weights. Those operations are used, and no other: all of a cell with orthogonal
vectors, some of a primitive or hexagonal one.
"""

from __future__ import annotations

import numpy as np
import spglib

from fnqs.configuration import Configuration
from fnqs_eval.twists import TwistSet, grid_integers

SAME_PLACE = 1e-6
"""Distance (bohr) up to which two protons are taken for equivalent; far less than what an energy notices."""

SAME_METRIC = 1e-8
"""Relative difference up to which two lattice vectors have equal lengths and angles."""


def exact_operations(configuration: Configuration) -> np.ndarray:
    """Find the operations of the crystal under which the wave function is unchanged.

    Args:
        configuration: cell (3, 3) and protons (N, 3), bohr; its twist does not count.

    Returns:
        (M, 3, 3) integers W, the identity among them: fractional coordinates x become W x + w, twists W theta.
    """
    cell, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    fractional = protons @ np.linalg.inv(cell)
    found = spglib.get_symmetry((cell.tolist(), fractional.tolist(), [1] * len(protons)), symprec=SAME_PLACE)
    unit = np.eye(3, dtype=int)[None]
    rotations = unit if found is None else np.unique(np.concatenate([unit, found["rotations"]]), axis=0)
    metric = cell @ cell.T
    exact = [
        rotation
        for rotation in rotations
        if np.array_equal(np.abs(rotation).sum(0), [1, 1, 1])
        and np.array_equal(np.abs(rotation).sum(1), [1, 1, 1])
        and all(_keeps(metric, form) for form in (rotation, np.abs(rotation)))
    ]
    return np.array(exact)


def reduce_by_symmetry(twists: TwistSet, configuration: Configuration) -> TwistSet:
    """Keep one twist of each that the crystal and time reversal make equal, with the weight of all.

    Grids are reduced; random and listed twists are returned as they are.

    Args:
        twists: a set of `parse_twists`.
        configuration: the crystal.
    """
    if twists.sizes is None:
        return twists
    sizes, grid = np.array(twists.sizes), grid_integers(twists.sizes)
    operations = [w for w in exact_operations(configuration) if np.array_equal(np.abs(w) @ sizes, sizes)]
    operations = np.concatenate([operations, np.negative(operations)])
    images = np.einsum("oab,tb->tao", operations, grid)
    images = sizes[:, None] - np.mod(sizes[:, None] - images, 2 * sizes[:, None])  # in (-q, q]
    names = [max(map(tuple, image.T.tolist())) for image in images]
    kept, counts = np.unique(names, axis=0, return_counts=True)
    if len(kept) == len(twists.twists):
        return twists  # time reversal is all there is
    description = f"{'x'.join(map(str, sizes))} Monkhorst-Pack, {len(grid)} twists as {len(kept)} by symmetry"
    return TwistSet(description, kept / (2 * sizes), counts / len(grid), sizes=twists.sizes)


def _keeps(metric: np.ndarray, form: np.ndarray) -> bool:
    return bool(np.all(np.abs(form.T @ metric @ form - metric) <= SAME_METRIC * np.trace(metric)))
