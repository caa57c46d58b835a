"""Observables as a table for people, and as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import units
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fnqs.cli.files import write_text_atomic
from fnqs.cli.notation import with_error
from fnqs_eval.energies.table import format_twist
from fnqs_eval.observables.finite_size import FiniteSize, spread
from fnqs_eval.observables.result import ObservablesResult, to_json

GIGAPASCAL = units.Hartree / units.Bohr**3 / units.GPa
"""GPa in a Ha/bohr^3."""

MEANING = {
    "virial_pressure": "(2 T + V) / 3 Omega; -dE/dV only for an eigenstate, or a psi optimal under scaling",
    "pressure": "-dE/dV of the variational energy itself under uniform strain of cell, protons and electrons: "
    "virial_pressure + pressure_covariance",
    "stress": "(1/Omega) dE/d strain, positive under tension (ASE): -trace/3 is the pressure",
    "forces": "-dE/dR of the variational energy, net force taken off",
    "s_fluctuating": "(<|rho|^2> - |<rho>|^2) / N",
    "finite_size": "corrections of E/N in Ha on top of a twist average; total is kinetic plus integral_minus_sum, or "
    "plus potential where that is null",
}


def print_tables(results: Sequence[ObservablesResult], title: str) -> None:
    """Print energies and pressures, then forces and finite-size corrections of each, then remarks."""
    headings = ("configuration", "N", "r_s\n(bohr)", "twist", "E/N\n(Ha)", "T/N\n(Ha)", "V/N\n(Ha)", "virial P\n(GPa)",
                "P = -dE/dV\n(GPa)", "largest\nforce (Ha/bohr)", "⟨S²⟩")  # fmt: skip
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in (0, 3) else "right", no_wrap=True)
    for result in results:
        cells = (
            result.identifier,
            str(result.number),
            f"{result.density_parameter:.3f}",
            format_twist(result.twist),
            *(with_error(*result.value(name)) for name in ("energy", "kinetic", "potential")),
            *(_pressure(result, name) for name in ("virial_pressure", "pressure")),
            _largest_force(result),
            with_error(*result.value("spin_squared")),
        )
        table.add_row(*[Text(cell) for cell in cells])
    console = Console(highlight=False, width=10_000)
    console.width = console.measure(table).maximum
    console.print(table)
    for result in results:
        for line in (*finite_size_lines(result), *stress_lines(result), *result.flags):
            print(f"{result.identifier}, {format_twist(result.twist)}: {line}")


def finite_size_lines(result: ObservablesResult) -> list[str]:
    """Raw energy, each correction and the sum."""
    if not result.finite_size:
        return []
    energy, error = result.value("energy")
    recipes = [_recipe(row) for row in result.finite_size]
    lines = ["finite size, mHa per atom (meant for a twist average; leading order):"]
    for one in recipes:
        beyond = "" if one.integral_minus_sum is None else f", integral minus sum {1e3 * one.integral_minus_sum:.3f}"
        lines.append(
            f"  {one.recipe}: b = {one.b:.4f} bohr², potential {1e3 * one.potential:.3f}{beyond}, "
            f"kinetic {1e3 * one.kinetic:.3f}, together {1e3 * one.total:.3f}"
        )
    mean, half = spread(recipes)
    lines.append(
        f"  E/N raw {with_error(energy, error)} Ha, correction {with_error(1e3 * mean, 1e3 * half)} mHa (half the "
        f"range of the recipes), sum {with_error(energy + mean, math.hypot(error, half))} Ha"
    )
    return lines


def stress_lines(result: ObservablesResult) -> list[str]:
    """Write the stress tensor in GPa."""
    found = result.quantities.get("stress")
    if found is None:
        return []
    parts = [
        f"{name} {with_error(float(value) * GIGAPASCAL, float(error) * GIGAPASCAL)}"
        for name, value, error in zip(
            ("xx", "yy", "zz", "yz", "xz", "xy"), np.asarray(found.values), np.asarray(found.errors), strict=True
        )
    ]
    return [f"stress (GPa, positive under tension): {', '.join(parts)}"]


def write_json(path: str | os.PathLike, results: Sequence[ObservablesResult], provenance: Mapping[str, Any]) -> None:
    """Write results, what they mean and where they come from.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "meaning": MEANING,
        "GPa in a Ha/bohr^3": GIGAPASCAL,
        "provenance": dict(provenance),
        "results": [to_json(result) for result in results],
    }
    write_text_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _recipe(row: Mapping[str, Any]) -> FiniteSize:
    return FiniteSize(**{name: row[name] for name in FiniteSize.__dataclass_fields__})


def _pressure(result: ObservablesResult, name: str) -> str:
    value, error = result.value(name)
    return with_error(value * GIGAPASCAL, error * GIGAPASCAL) if math.isfinite(value) else ""


def _largest_force(result: ObservablesResult) -> str:
    found = result.quantities.get("forces")
    if found is None:
        return ""
    values, errors = np.ravel(found.values), np.ravel(found.errors)
    place = int(np.argmax(np.abs(values)))
    return with_error(float(values[place]), float(errors[place]))
