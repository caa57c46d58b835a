"""Distances between protons: g(r), nearest neighbours, and whether g(r) has the peak of a bond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.neighborlist import primitive_neighbor_list

from fnqs.configuration import Configuration

BOND_WINDOW = (1.2, 1.65)
"""Where the bond of a molecule shows in g(r), bohr: around 1.40, shorter and longer by thermal motion."""

GAP = 2.1
"""Between the bond and this distance (bohr), g(r) of molecules falls to less than half of its peak."""


def pair_distribution(configurations: Sequence[Configuration], edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proton-proton g(r), all periodic images included, and nearest-neighbour distances.

    Args:
        configurations: of any N.
        edges: (B + 1,) bin edges, bohr.

    Returns:
        g (B,), the mean over configurations; and the distance (bohr) of every proton's nearest neighbour
        closer than the last edge.
    """
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    total, nearest = np.zeros(len(edges) - 1), []
    for configuration in configurations:
        cell, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
        first, distance = primitive_neighbor_list("id", (True, True, True), cell, protons, float(edges[-1]))
        n_atoms = len(protons)
        counts = np.histogram(distance, bins=edges)[0]
        total += counts / n_atoms / (shells * n_atoms / abs(np.linalg.det(cell)))
        closest = np.full(n_atoms, np.inf)
        np.minimum.at(closest, first, distance)
        nearest.append(closest[np.isfinite(closest)])
    return total / max(len(configurations), 1), np.concatenate(nearest) if nearest else np.zeros(0)


def bond_peak(pair: np.ndarray, edges: np.ndarray) -> float | None:
    """Where g(r) peaks at the bond length of a molecule, or None where it does not.

    A peak is more than 1 high, at least as high as all that is nearer, and followed by a gap; its position is the
    mean over the bins of the window that reach half of its height, which a few dozen bonds settle to a bin.

    Args:
        pair: (B,) g(r).
        edges: (B + 1,) bin edges, bohr.

    Returns:
        The position in bohr.
    """
    middles = (edges[1:] + edges[:-1]) / 2
    window = np.flatnonzero((middles > BOND_WINDOW[0]) & (middles < BOND_WINDOW[1]))
    if not len(window):
        return None
    top = int(window[pair[window].argmax()])
    height, gap = pair[top], pair[top:][middles[top:] < GAP]
    if height <= 1 or height < pair[:top].max(initial=0) or gap.min() >= height / 2:
        return None
    around = window[pair[window] >= height / 2]
    return float(np.average(middles[around], weights=pair[around]))
