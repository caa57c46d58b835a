"""The picture of an equation of state: energies with their fit, and pressure by three routes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fnqs_eval.observables.equation_of_state import GRID, EquationOfState
from fnqs_eval.observables.result import ObservablesResult
from fnqs_eval.observables.table import GIGAPASCAL
from fnqs_eval.plots import COLOURS, save_figure


def draw(path: str | os.PathLike, phases: Sequence[tuple[str, Sequence[ObservablesResult], EquationOfState]]) -> None:
    """Write the picture as PNG; one colour a phase.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, results, state) in enumerate(phases):
        colour = COLOURS[place % len(COLOURS)]
        fine = np.linspace(state.volumes[0], state.volumes[-1], GRID)
        energies, pressures = state.energy(fine), state.pressure(fine) * GIGAPASCAL
        left.errorbar(state.volumes, state.energies, state.errors, fmt="o", markersize=4, color=colour, label=name)
        left.plot(fine, energies[0], color=colour, linewidth=1.4)
        spread = np.std(pressures[1:], axis=0)
        right.plot(fine, pressures[0], color=colour, linewidth=1.4, label=f"{name}: −dE/dV of the fit")
        right.fill_between(fine, pressures[0] - spread, pressures[0] + spread, color=colour, alpha=0.2, linewidth=0)
        volumes = [result.volume / result.number for result in results]
        for key, marker, told in (("virial_pressure", "x", "virial"), ("pressure", "o", "measured −dE/dV")):
            values = np.array([result.value(key) for result in results]).T * GIGAPASCAL
            right.errorbar(volumes, *values, fmt=marker, markersize=5, color=colour, fillstyle="none", label=told)
    left.set_ylabel("E/N (Ha)")
    right.set_ylabel("pressure (GPa)")
    for axis in (left, right):
        axis.set_xlabel("volume per atom (bohr³)")
        axis.legend(frameon=False, fontsize="small")
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
