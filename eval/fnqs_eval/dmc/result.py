"""Results of diffusion Monte Carlo as a table for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fnqs.cli.files import write_text_atomic
from fnqs.cli.notation import with_error
from fnqs_eval.dmc.estimate import extrapolate
from fnqs_eval.energies.table import format_twist

UNLIKELY = 0.01
"""Probability of a chi^2 by chance below which the energies are said not to lie on a straight line."""


@dataclass(frozen=True, kw_only=True)
class DmcResult:
    """Energy of one configuration at one time step, or at time step 0 from several.

    Attributes:
        identifier: the configuration's name in its file or data set.
        number: protons N.
        density_parameter: r_s, bohr.
        twist: fractions of the reciprocal lattice vectors, of both spins.
        kept: "nodes" where psi is real, "phase" where it is complex.
        time_step: 1/Ha; 0 for the extrapolated energy.
        energy_per_atom, error_per_atom: Ha, with carried weights.
        plain_energy_per_atom: Ha, without carried weights: the difference shows the bias of a small population.
        vmc_energy_per_atom, vmc_error_per_atom: Ha, of psi itself, on the walkers that the projection starts from.
        gain_per_atom, gain_error_per_atom: VMC minus DMC, Ha.
        acceptance: accepted fraction of the moves.
        spread: share of the walkers that are drawn again at least once in a step.
        limited: share of the walkers whose energy was cut off for their weight.
        steps: time steps that counted.
        slope: change of E/N with the time step, Ha^2; of the extrapolated energy only.
        chi_square, probability: of the straight line, from three time steps on.
        flags: what makes the number less trustworthy, in plain words.
    """

    identifier: str
    number: int
    density_parameter: float
    twist: tuple[float, float, float]
    kept: str
    time_step: float
    energy_per_atom: float
    error_per_atom: float
    vmc_energy_per_atom: float
    vmc_error_per_atom: float
    gain_per_atom: float
    gain_error_per_atom: float
    plain_energy_per_atom: float | None = None
    acceptance: float | None = None
    spread: float | None = None
    limited: float | None = None
    steps: int | None = None
    slope: float | None = None
    chi_square: float | None = None
    probability: float | None = None
    flags: list[str] = field(default_factory=list)


def result_from_json(values: Mapping[str, Any]) -> DmcResult:
    """Make a result of its JSON object."""
    known: dict[str, Any] = {name: values[name] for name in DmcResult.__dataclass_fields__ if name in values}
    known["twist"] = tuple(known["twist"])
    return DmcResult(**known)


def at_zero(results: Sequence[DmcResult]) -> DmcResult | None:
    """Extrapolate the results of one configuration to time step 0; None where they do not suffice."""
    line = extrapolate(
        [r.time_step for r in results], [r.energy_per_atom for r in results], [r.error_per_atom for r in results]
    )
    if line is None:
        return None
    first, flags = results[0], []
    if line.probability is not None and line.probability < UNLIKELY:
        flags.append(f"chi² {line.chi_square:.1f}: the energies lie on no straight line; leave the longest step out")
    if any(r.flags for r in results):
        flags.append("some of the energies it comes from have remarks of their own")
    return dataclasses.replace(
        first,
        time_step=0.0,
        energy_per_atom=line.energy,
        error_per_atom=line.error,
        gain_per_atom=first.vmc_energy_per_atom - line.energy,
        gain_error_per_atom=math.hypot(first.vmc_error_per_atom, line.error),
        plain_energy_per_atom=None,
        acceptance=None,
        spread=None,
        limited=None,
        steps=None,
        slope=line.slope,
        chi_square=line.chi_square,
        probability=line.probability,
        flags=flags,
    )


def with_zero(results: Sequence[DmcResult], each: int) -> list[DmcResult]:
    """Put the extrapolated energy after the `each` results of a configuration, where there is one."""
    rows = []
    for start in range(0, len(results), each):
        own = results[start : start + each]
        zero = at_zero(own)
        rows += [*own, *([] if zero is None else [zero])]
    return rows


def print_table(rows: Sequence[DmcResult], title: str) -> None:
    """Print the results as an aligned table, never cut, and below it what limits them."""
    headings = (
        "configuration", "N", "r_s\n(bohr)", "twist", "kept", "time step\n(1/Ha)", "E/N\n(Ha)",
        "without carried\nweights",
        "VMC E/N\n(Ha)", "VMC - DMC\n(mHa)", "accep-\ntance", "drawn", "cut off", "chi²",
    )  # fmt: skip
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in (0, 3, 4) else "right", no_wrap=True)
    for row in rows:
        cells = (
            row.identifier,
            str(row.number),
            f"{row.density_parameter:.3f}",
            format_twist(row.twist),
            row.kept,
            f"{row.time_step:g}" if row.time_step else "→ 0",
            with_error(row.energy_per_atom, row.error_per_atom),
            _as("{:.5f}", row.plain_energy_per_atom),
            with_error(row.vmc_energy_per_atom, row.vmc_error_per_atom),
            with_error(1e3 * row.gain_per_atom, 1e3 * row.gain_error_per_atom),
            _as("{:.3f}", row.acceptance),
            _as("{:.2f}", row.spread),
            _as("{:.2%}", row.limited),
            _as("{:.1f}", row.chi_square),
        )
        table.add_row(*[Text(cell) for cell in cells])
    console = Console(highlight=False, width=10_000)
    console.width = console.measure(table).maximum
    console.print(table)
    for row in rows:
        for flag in row.flags:
            print(f"{row.identifier}, time step {row.time_step:g}: {flag}")
    print("\n".join(what_it_is(rows)))


def what_it_is(rows: Sequence[DmcResult]) -> list[str]:
    """Say what kind of energies these are."""
    kinds = {row.kept for row in rows}
    lines = ["all-electron moves with the trained wave function as guide, at the twist of the file"]
    if "nodes" in kinds:
        lines.append("nodes: psi is real and its nodes are kept; an upper bound only at time step 0")
    if "phase" in kinds:
        lines.append("phase: psi is complex and its phase is kept; no claim of an upper bound is made")
    return lines


def write_json(path: str | os.PathLike, rows: Sequence[DmcResult], provenance: Mapping[str, Any]) -> None:
    """Write results and where they come from; numbers that are not finite become null.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "units": {"energies and errors": "Ha per atom", "time_step": "1/Ha", "density_parameter": "bohr"},
        "meaning": what_it_is(rows),
        "provenance": dict(provenance),
        "results": [
            {name: None if _lost(value) else value for name, value in dataclasses.asdict(row).items()} for row in rows
        ],
    }
    write_text_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike, rows: Sequence[DmcResult]) -> None:
    """Write one line a result with the attributes of DmcResult as headings; what is missing stays empty.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(DmcResult.__dataclass_fields__)
    writer.writerow(names)
    for row in rows:
        values = dataclasses.asdict(row) | {"twist": " ".join(map(str, row.twist)), "flags": "; ".join(row.flags)}
        writer.writerow(["" if values[name] is None or _lost(values[name]) else values[name] for name in names])
    write_text_atomic(path, text.getvalue())


def _as(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def _lost(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
