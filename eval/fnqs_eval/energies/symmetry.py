"""Twists at which the wave function has equal energies by the crystal's symmetry, exactly and for any parameters.

A point-group operation W of the crystal maps a state at twist theta to one at W^-T theta with the same energy. The wave
function depends on the lattice only through smooth distances, which have all its symmetries, and so it is mapped too.
There is one exception. psi contains the factor exp(i k . sum z), k the shortest wave vector of the twist. At the
border of the Brillouin zone several wave vectors are equally short, and the wave function uses one of them. So two
twists count as equivalent only if W maps the k used at the first to the k used at the second.
"""

from __future__ import annotations

import numpy as np
import spglib
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fnqs.configuration import Configuration
from fnqs.periodic.cell import reciprocal_vectors, shortest_wave_vector
from fnqs_eval.energies.twists import TwistSet, grid_integers

SAME_PLACE = 1e-6
"""Tolerance (bohr) of proton positions in the search for symmetries; it changes no energy noticeably."""

SAME_WAVE = 1e-8
"""Relative difference up to which two wave vectors are equal."""


def crystal_operations(configuration: Configuration) -> np.ndarray:
    """Find the operations of a crystal.

    Args:
        configuration: cell (3, 3) and protons (N, 3), bohr; its twist does not count.

    Returns:
        (M, 3, 3) integers W, the identity among them: fractional coordinates x become W x + w, twists W^-T theta.
    """
    cell, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    fractional = protons @ np.linalg.inv(cell)
    found = spglib.get_symmetry((cell.tolist(), fractional.tolist(), [1] * len(protons)), symprec=SAME_PLACE)
    unit = np.eye(3, dtype=int)[None]
    if found is None:
        return unit
    return np.unique(np.concatenate([unit, found["rotations"]]), axis=0)


def reduce_by_symmetry(twists: TwistSet, configuration: Configuration) -> TwistSet:
    """Keep one twist of each that the crystal and time reversal make equal, with the weight of all.

    Grids are reduced; random and listed twists are returned as they are.

    Args:
        twists: a set of `parse_twists`.
        configuration: the crystal.
    """
    if twists.sizes is None:
        return twists
    cell = np.asarray(configuration.cell)
    sizes, grid = np.array(twists.sizes), grid_integers(twists.sizes)
    group = _orbits(cell, crystal_operations(configuration), sizes, grid)
    names = np.array([max(map(tuple, grid[group == orbit].tolist())) for orbit in range(group.max() + 1)])
    counts = np.bincount(group)
    if len(names) == len(twists.twists):
        return twists  # time reversal is all there is
    description = f"{'x'.join(map(str, sizes))} Monkhorst-Pack, {len(grid)} twists as {len(names)} by symmetry"
    return TwistSet(description, names / (2 * sizes), counts / len(grid), sizes=twists.sizes)


def _orbits(cell: np.ndarray, operations: np.ndarray, sizes: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Label each twist of a grid by its class of equivalent ones.

    Args:
        cell: (3, 3) bohr.
        operations: (M, 3, 3) of `crystal_operations`.
        sizes: (3,) of the grid.
        grid: (T, 3) integers g; the twists are g / (2 sizes).

    Returns:
        (T,) labels from 0.
    """
    reciprocal = reciprocal_vectors(cell)
    waves = np.array([shortest_wave_vector(cell, numbers / (2 * sizes)) for numbers in grid])
    places = {tuple(numbers): place for place, numbers in enumerate(grid.tolist())}
    turns = np.rint(np.swapaxes(np.linalg.inv(operations), 1, 2))
    first, second = [], []
    for turn in np.concatenate([turns, -turns]):
        images = grid @ (sizes[:, None] * turn / sizes).T
        images = sizes - np.mod(sizes - images, 2 * sizes)  # in (-q, q]
        turned = waves @ (np.linalg.inv(reciprocal) @ turn.T @ reciprocal)
        for place, image in enumerate(images):
            other = places.get(tuple(image))
            if other is not None and np.abs(turned[place] - waves[other]).max() <= SAME_WAVE * np.abs(reciprocal).max():
                first.append(place)
                second.append(other)
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(grid), len(grid)))
    return connected_components(links, directed=False)[1]
