"""The command fnqs-evaluate eos."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fnqs.cli.files import write_text_atomic
from fnqs.cli.notation import with_error
from fnqs.configuration import Configuration, find_fault, wigner_seitz_radius
from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_eval.energies.sampling_command import add_sampling_options, output_path
from fnqs_eval.observables.eos_picture import draw
from fnqs_eval.observables.equation_of_state import EquationOfState, crossings, fit
from fnqs_eval.observables.result import ObservablesResult, to_json
from fnqs_eval.observables.run import add_length_options, measured, settings_of
from fnqs_eval.observables.sample import ObservableSettings
from fnqs_eval.observables.table import GIGAPASCAL
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.loading import read_selected

COLUMNS = (
    "phase", "N", "r_s_bohr", "volume_per_atom_bohr3", "energy_per_atom_Ha", "error_Ha", "virial_pressure_GPa",
    "virial_error_GPa", "pressure_GPa", "pressure_error_GPa", "fit_pressure_GPa", "fit_pressure_error_GPa",
    "enthalpy_per_atom_Ha", "enthalpy_error_Ha",
)  # fmt: skip
"""Of the CSV."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One structure at several densities.

    Attributes:
        name: of the structure.
        results: by ascending r_s.
        state: the fit to their energies.
        corrected: whether the energies have finite-size corrections.
    """

    name: str
    results: list[ObservablesResult]
    state: EquationOfState
    corrected: bool


def add_eos(commands) -> None:
    """Add the command to the sub-parsers of fnqs-evaluate."""
    parser = commands.add_parser(
        "eos",
        help="equation of state: energies and pressures of structures at several densities, enthalpies, crossings",
        description="Scale every configuration to each r_s, measure energy and pressure, fit E(V), and print pressure\n"
        "by three routes: the virial theorem, the derivative of the variational energy (measured), and -dE/dV\n"
        "of the fit. With several configurations, each is taken for a phase: enthalpies H = E + PV against\n"
        "pressure, and the pressures where two cross, with errors from refits of energies drawn within theirs.\n"
        "Structures are scaled, not relaxed; protons are static, without zero-point motion.\n\n"
        "  fnqs-evaluate eos foundation --configurations bcc.extxyz --r-s 1.2:2.0:9\n"
        "  fnqs-evaluate eos foundation --configurations two_phases.extxyz --r-s 1.3,1.4,1.5,1.6 --twists 2x2x2\n\n"
        "Where the three routes differ, the energies are not smooth in V or psi is far from optimal. Written: JSON,\n"
        "and beside it CSV and PNG.",
    )
    add_sampling_options(
        parser,
        prefix="eos",
        walkers=64,
        error=1e-3,
        stops="at which each density stops by itself (default 0.001); with --twists that of the average",
        also="CSV and PNG",
    )
    add_length_options(parser)
    parser.add_argument(
        "--r-s",
        metavar="LIST",
        required=True,
        help="densities in bohr: first:last:count, or three values or more separated by commas",
    )
    parser.add_argument(
        "--finite-size",
        action="store_true",
        help="add the mean of the finite-size recipes to every energy before the fit; measured pressures stay",
    )
    parser.set_defaults(run=run_eos)


def run_eos(options: argparse.Namespace) -> int:
    """Measure, fit, print and write."""
    densities = parse_densities(options.r_s)
    checkpoint = resolve_checkpoint(options.checkpoint)
    output = output_path(options, checkpoint, "eos", (".csv", ".png"))
    records = read_selected(options.configurations, options.frames)
    scaled = [at_density(record, density) for record in records for density in densities]
    settings = ObservableSettings(**settings_of(options), derivatives="stress", correlations=True)
    with measured(options, checkpoint, scaled, settings, output) as run:
        phases = [
            fitted(record.identifier, run.totals[start : start + len(densities)], options.finite_size, options.seed)
            for record, start in zip(records, itertools.count(0, len(densities)), strict=False)
        ]
        rows = [row for phase in phases for row in phase_rows(phase)]
        found = phase_crossings(phases)
        document = {
            "units": "per atom; Ha, bohr^3, GPa",
            "provenance": run.provenance,
            "finite_size_corrections_in_energies": options.finite_size,
            "table": [{name: _finite(value) for name, value in row.items()} for row in rows],
            "crossings": found,
            "chi_square": {phase.name: _finite(phase.state.chi_square) for phase in phases},
            "results": [to_json(row) for row in run.rows],
        }
        write_text_atomic(output, json.dumps(document, indent=1, allow_nan=False) + "\n")
        write_text_atomic(output.with_suffix(".csv"), _csv(rows))
        draw(output.with_suffix(".png"), [(phase.name, phase.results, phase.state) for phase in phases])
    _print(rows, f"{options.checkpoint}, step {checkpoint.step}: equation of state")
    for phase in phases:
        print(f"{phase.name}: chi² per degree of freedom of the fit {phase.state.chi_square:.2f}")
    for crossing in found:
        told = with_error(crossing["pressure_GPa"], crossing["error_GPa"])
        pair = f"{crossing['first']} and {crossing['second']}"
        print(f"{pair} have equal enthalpies at {told} GPa; {crossing['share']:.0%} of the draws cross")
    if len(phases) > 1 and not found:
        print("no enthalpies cross in the range of pressures that two phases share")
    for row in run.rows:
        for flag in row.flags:
            print(f"{row.identifier}: {flag}")
    print(f"written: {output}, .csv, .png")
    return 0


def parse_densities(text: str) -> list[float]:
    """Turn "1.2:2.0:9" or "1.3,1.4,1.5" into ascending r_s in bohr.

    Raises:
        InputError: anything else, fewer than three, or values outside 0.2 to 20.
    """
    try:
        if ":" in text:
            first, last, number = text.split(":")
            found = np.linspace(float(first), float(last), int(number)).tolist()
        else:
            found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    found = sorted(set(found))
    if len(found) < 3 or not all(0.2 <= value <= 20 for value in found):
        raise InputError(f"--r-s {text}: give first:last:count or three different values or more, 0.2 to 20 bohr")
    return found


def at_density(record: Record, density: float) -> Record:
    """Scale cell and protons of a record uniformly to an r_s in bohr, without its labels.

    Raises:
        InputError: protons would come too close.
    """
    factor = density / float(wigner_seitz_radius(record.configuration))
    configuration = record.configuration
    scaled = Configuration(
        np.asarray(configuration.cell) * factor, np.asarray(configuration.protons) * factor, configuration.twist
    )
    if fault := find_fault(scaled):
        raise InputError(f"{record.identifier} at r_s = {density:g}: {fault}")
    return Record(configuration=scaled, identifier=f"{record.identifier}@{density:g}", phase=record.phase)


def fitted(name: str, results: Sequence[ObservablesResult], correct: bool, seed: int) -> Phase:
    """Fit one phase.

    Raises:
        InputError: an energy that is not finite.
    """
    energies, errors, volumes = [], [], []
    for result in results:
        energy, error = result.value("energy")
        if not math.isfinite(energy) or not math.isfinite(error):
            raise InputError(f"{result.identifier}: there is no finite energy, so nothing can be fitted")
        if correct:
            totals = [row["total"] for row in result.finite_size]
            energy, error = energy + float(np.mean(totals)), math.hypot(error, 0.5 * (max(totals) - min(totals)))
        energies.append(energy)
        errors.append(error)
        volumes.append(result.volume / result.number)
    state = fit(np.array(volumes), np.array(energies), np.array(errors), seed)
    return Phase(name, list(results), state, correct)


def phase_rows(phase: Phase) -> list[dict[str, Any]]:
    """Rows of the table of one phase."""
    state, rows = phase.state, []
    pressures = state.pressure(state.volumes) * GIGAPASCAL
    energies = state.energy(state.volumes)
    enthalpies = energies + pressures / GIGAPASCAL * state.volumes
    ordered = sorted(phase.results, key=lambda result: result.volume)
    for place, result in enumerate(ordered):
        values = [
            phase.name, result.number, result.density_parameter, state.volumes[place], state.energies[place],
            state.errors[place], *(x * GIGAPASCAL for x in result.value("virial_pressure")),
            *(x * GIGAPASCAL for x in result.value("pressure")),
            pressures[0, place], np.std(pressures[1:, place]), enthalpies[0, place], np.std(enthalpies[1:, place]),
        ]  # fmt: skip
        plain = (value if isinstance(value, str | int) else float(value) for value in values)
        rows.append(dict(zip(COLUMNS, plain, strict=True)))
    return rows


def phase_crossings(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """All pressures at which two phases have equal enthalpies, as JSON values."""
    return [
        {
            "first": first.name,
            "second": second.name,
            "pressure_GPa": one.pressure * GIGAPASCAL,
            "error_GPa": _finite(one.error * GIGAPASCAL),
            "share": one.share,
        }
        for first, second in itertools.combinations(phases, 2)
        for one in crossings(first.state, second.state)
    ]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list[str](COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if _finite(value) is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _print(rows: Sequence[dict[str, Any]], title: str) -> None:
    headings = ("phase", "N", "r_s\n(bohr)", "E/N\n(Ha)", "virial P\n(GPa)", "P = -dE/dV\n(GPa)", "P of the fit\n(GPa)",
                "H/N\n(Ha)")  # fmt: skip
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    pairs: tuple[tuple[str, str], ...] = (
        ("energy_per_atom_Ha", "error_Ha"),
        ("virial_pressure_GPa", "virial_error_GPa"),
        ("pressure_GPa", "pressure_error_GPa"),
        ("fit_pressure_GPa", "fit_pressure_error_GPa"),
        ("enthalpy_per_atom_Ha", "enthalpy_error_Ha"),
    )
    for row in rows:
        cells = [row["phase"], str(row["N"]), f"{row['r_s_bohr']:.3f}"]
        cells += [with_error(row[value], row[error]) for value, error in pairs]
        table.add_row(*[Text(cell) for cell in cells])
    console = Console(highlight=False, width=10_000)
    console.width = console.measure(table).maximum
    console.print(table)
