"""Energies of configurations as a table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fnqs.cli.files import write_text_atomic
from fnqs.cli.notation import with_error

_UNLIMITED = 10_000


@dataclass(frozen=True, kw_only=True)
class EnergyResult:
    """One evaluated configuration.

    Attributes:
        identifier: the configuration's name in its file or data set.
        number: protons N.
        density_parameter: r_s, bohr.
        phase: name of its phase.
        twist: fractions of the reciprocal lattice vectors, of both spins; None for the average over a set of them.
        energy_per_atom: Ha.
        error_per_atom: standard error, Ha.
        variance_per_atom: variance of the local energy of the cell over N, Ha^2.
        acceptance: fraction of accepted moves.
        v_score: N Var / E^2 of the cell.
        label_energy_per_atom: energy that came with the configuration, Ha.
        label_convention: how that energy was computed, as far as its file says.
        effective_samples: independent local energies that would give the same error.
        distance: from the training set, 1 being usual inside it; None where that set is not at hand.
        reliability: "good", "fair" or "poor", judged from the last three and the variance.
        relative_energy, relative_error: E/N minus that of the reference configuration, Ha.
        weight: of this twist in the average; None for a single twist.
        flags: what makes the number less trustworthy, in plain words.
        steps: optimisation steps spent on this configuration; 0 for zero-shot, None if it does not apply.
        equilibration_sweeps: moves before anything counted.
        spin_memory, spin_memory_error: what was left of the walkers' first spin patterns, 1 at the start, when
            measuring began, with its standard error.
        spin_squared, spin_squared_error: <S^2>, 0 for a singlet and 2 for a triplet, with its standard error.
    """

    identifier: str
    number: int
    density_parameter: float
    phase: str
    twist: tuple[float, float, float] | None
    energy_per_atom: float
    error_per_atom: float
    variance_per_atom: float
    acceptance: float
    v_score: float
    label_energy_per_atom: float | None = None
    label_convention: str = ""
    effective_samples: float | None = None
    distance: float | None = None
    reliability: str | None = None
    relative_energy: float | None = None
    relative_error: float | None = None
    weight: float | None = None
    flags: list[str] = field(default_factory=list)
    steps: int | None = None
    equilibration_sweeps: int | None = None
    spin_memory: float | None = None
    spin_memory_error: float | None = None
    spin_squared: float | None = None
    spin_squared_error: float | None = None


def print_table(results: Sequence[EnergyResult], *, title: str = "", stream: TextIO | None = None) -> None:
    """Print results as an aligned table, never cut; empty columns are left out, flags stand below.

    Args:
        results: one line each, in this order.
        title: a line above.
        stream: where to write; standard output if None.
    """
    columns: list[tuple[str, Any, bool]] = [
        ("configuration", lambda r: r.identifier, False),
        ("N", lambda r: str(r.number), True),
        ("r_s\n(bohr)", lambda r: f"{r.density_parameter:.3f}", True),
        ("phase", lambda r: r.phase, False),
        ("twist", lambda r: format_twist(r.twist), False),
        ("steps", lambda r: None if r.steps is None else str(r.steps), True),
        ("E/N\n(Ha)", lambda r: with_error(r.energy_per_atom, r.error_per_atom), True),
        ("var/N\n(Ha²)", lambda r: f"{r.variance_per_atom:.2e}", True),
        ("accep-\ntance", lambda r: f"{r.acceptance:.2f}", True),
        ("V-score", lambda r: f"{r.v_score:.1e}", True),
        ("⟨S²⟩", lambda r: _spin(r), True),
        ("E/N - first\n(mHa)", lambda r: _relative(r), True),
        ("relia-\nbility", lambda r: r.reliability, False),
        ("label E/N\n(Ha)", lambda r: _optional(r.label_energy_per_atom, "{:.5f}"), True),
    ]
    rows = [[text(result) for _, text, _ in columns] for result in results]
    used = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    table = Table(title=title or None, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in used:
        name, _, right = columns[i]
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*[Text(row[i] or "") for i in used])
    console = Console(file=stream, highlight=False, width=_UNLIMITED)
    console.width = console.measure(table).maximum
    console.print(table)
    for result in results:
        if result.flags:
            console.print(Text(f"{result.identifier}: {'; '.join(result.flags)}"), soft_wrap=True)


def write_json(
    path: str | os.PathLike, results: Sequence[EnergyResult], provenance: Mapping[str, Any] | None = None
) -> None:
    """Write results and where they come from as JSON; numbers that are not finite become null.

    Args:
        path: the file, replaced only when the new one is whole.
        results: one object each, with the names and units of EnergyResult.
        provenance: checkpoint, step, files, versions, settings: JSON values.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "units": {
            "density_parameter": "bohr",
            "energy_per_atom": "Ha",
            "error_per_atom": "Ha",
            "variance_per_atom": "Ha^2",
            "spin_squared": "1",
            "label_energy_per_atom": "Ha",
            "relative_energy": "Ha",
            "relative_error": "Ha",
            "twist": "fractions of the reciprocal lattice vectors",
        },
        "provenance": dict(provenance or {}),
        "results": [_without_nan(dataclasses.asdict(result)) for result in results],
    }
    write_text_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def format_twist(twist: Sequence[float] | None) -> str:
    """Write a twist as the point's name or its three fractions, and None as "average"."""
    if twist is None:
        return "average"
    if not any(twist):
        return "Γ"
    return "(" + " ".join(f"{fraction:.3g}" for fraction in twist) + ")"


def _spin(result: EnergyResult) -> str | None:
    if result.spin_squared is None or result.spin_squared_error is None:
        return None
    return with_error(result.spin_squared, result.spin_squared_error)


def _relative(result: EnergyResult) -> str | None:
    if result.relative_energy is None or result.relative_error is None:
        return None
    return with_error(1e3 * result.relative_energy, 1e3 * result.relative_error) if result.relative_error else "0"


def _optional(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
