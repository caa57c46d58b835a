"""Pictures of a set of configurations: where it lies, how its protons sit, what its labels are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fnqs.configuration import Configuration
from fnqs_data.record import Record

LONGEST = 4.5
"""Largest distance shown in g(r), bohr."""

SAMPLED = 150
"""Configurations of each phase that enter g(r)."""


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
        number = len(protons)
        counts = np.histogram(distance, bins=edges)[0]
        total += counts / number / (shells * number / abs(np.linalg.det(cell)))
        closest = np.full(number, np.inf)
        np.minimum.at(closest, first, distance)
        nearest.append(closest[np.isfinite(closest)])
    return total / max(len(configurations), 1), np.concatenate(nearest) if nearest else np.zeros(0)


def plot_records(records: Sequence[Record], path: Path, title: str) -> None:
    """Draw the r_s x phase map, g(r) per phase, nearest neighbours and labelled energies into a PNG.

    Args:
        records: what to show; at most `SAMPLED` of a phase enter g(r).
        path: the PNG to write.
        title: above the picture.
    """
    phases = sorted({record.phase for record in records})
    members = {phase: [r for r in records if r.phase == phase] for phase in phases}
    colours = [colormaps["tab20"](i % 20) for i in range(len(phases))]
    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: {len(records)} configurations")
    ((map_axes, pair_axes), (nearest_axes, energy_axes)) = figure.subplots(2, 2)
    edges = np.linspace(0.0, LONGEST, 91)
    middles = (edges[1:] + edges[:-1]) / 2
    generator = np.random.default_rng(0)
    for row, (phase, colour) in enumerate(zip(phases, colours, strict=True)):
        group = members[phase]
        density = np.array([r.density_parameter for r in group])
        spread = row + 0.3 * generator.uniform(-1, 1, len(group))
        map_axes.plot(density, spread, ".", markersize=2, color=colour, rasterized=True)
        chosen = [group[i] for i in np.linspace(0, len(group) - 1, min(SAMPLED, len(group))).astype(int)]
        pair, nearest = pair_distribution([r.configuration for r in chosen], edges)
        pair_axes.plot(middles, pair, color=colour, label=phase)
        if len(nearest):
            nearest_axes.hist(nearest, bins=edges, density=True, histtype="step", color=colour, label=phase)
        labelled = [(r.density_parameter, r.energy_per_atom) for r in group if r.energy_per_atom is not None]
        if labelled:
            energy_axes.plot(*np.array(labelled).T, ".", markersize=4, color=colour, label=phase)
    map_axes.set_yticks(range(len(phases)), phases)
    map_axes.set(xlabel="r_s (bohr)", title="density and phase")
    pair_axes.set(xlabel="r (bohr)", ylabel="g(r)", title="proton pair distribution", ylim=(0, None))
    nearest_axes.set(xlabel="distance of the nearest proton (bohr)", title="nearest neighbours")
    energy_axes.set(xlabel="r_s (bohr)", ylabel="E/N (Ha per atom)", title="labelled energies")
    if not energy_axes.lines:
        energy_axes.text(0.5, 0.5, "no labels", ha="center", transform=energy_axes.transAxes)
    for axes in (pair_axes, energy_axes):
        if axes.lines:
            axes.legend(fontsize=8, ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
