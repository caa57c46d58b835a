"""One periodic cell, drawn in three dimensions: its edges, its protons and the short distances between them."""

from __future__ import annotations

import itertools

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from mpl_toolkits.mplot3d import Axes3D

from fnqs.configuration import Configuration

LONGEST_BOND = 1.8
"""Protons nearer to each other than this (bohr) are joined by a line."""


def draw_cell(axes: Axes3D, configuration: Configuration, colour: object) -> None:
    """Draw the protons of one cell, with the edges of the cell and the bonds shorter than `LONGEST_BOND`.

    A bond that leaves the cell ends at the image of its proton, drawn as a ring.

    Args:
        axes: three-dimensional axes to draw into.
        configuration: cell (3, 3) and protons (N, 3), bohr; protons outside the cell are moved into it.
        colour: of the protons and bonds.
    """
    cell = np.asarray(configuration.cell)
    # The small shift keeps protons that lie on a face, up to rounding, together on one side.
    protons = ((np.asarray(configuration.protons) @ np.linalg.inv(cell) + 1e-6) % 1.0 - 1e-6) @ cell
    for corner in itertools.product((0, 1), repeat=3):
        for axis in range(3):
            if corner[axis] == 0:
                ends = np.array([corner, corner]) + np.array([[0, 0, 0], np.eye(3)[axis]])
                axes.plot(*(ends @ cell).T, color="0.6", linewidth=0.8)
    first, second, shift = primitive_neighbor_list("ijS", (True, True, True), cell, protons, LONGEST_BOND)
    away = shift.any(axis=1)
    images = protons[second] + shift @ cell
    for i, j, image, leaves in zip(first, second, images, away, strict=True):
        if leaves or i < j:
            axes.plot(*np.array([protons[i], image]).T, color=colour, linewidth=2.5, alpha=0.5)
    axes.scatter(*protons.T, s=45, color=colour, edgecolor="black", linewidth=0.5, depthshade=False)
    if away.any():
        axes.scatter(*images[away].T, s=45, facecolor="white", edgecolor=colour, linewidth=0.8, depthshade=False)
    seen = np.concatenate([np.array(list(itertools.product((0, 1), repeat=3))) @ cell, images[away]])
    low, high = seen.min(axis=0), seen.max(axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect(high - low)
    axes.view_init(elev=18, azim=-62)
    axes.set_axis_off()
