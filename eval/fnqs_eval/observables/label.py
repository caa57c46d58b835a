"""The command fnqs-evaluate label: energies, forces and stresses for other people's models."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from fnqs.cli.files import atomic_write
from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_eval.energies.sampling_command import add_sampling_options, output_path
from fnqs_eval.observables.result import ObservablesResult
from fnqs_eval.observables.run import add_length_options, measured, settings_of
from fnqs_eval.observables.sample import ObservableSettings
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.loading import read_selected

METHOD = "fnqs variational Monte Carlo, static protons"
"""What the file says of its labels."""

CONVENTIONS = (
    "eV, angstrom; stress in eV/angstrom^3, positive under tension (ASE), Voigt order in errors; energy without "
    "finite-size corrections; forces and stress are derivatives of this energy; errors are standard errors"
)
"""Of the numbers in the file."""


def add_label(commands) -> None:
    """Add the command to the sub-parsers of fnqs-evaluate."""
    parser = commands.add_parser(
        "label",
        help="extxyz with energy, forces and stress of every configuration, to train other models on",
        description="Measure energy, forces and stress of every configuration and write them as extxyz in ASE's units\n"
        "and signs: energy (eV), forces (eV/angstrom), stress (eV/angstrom^3), and in `info` and `arrays` their\n"
        "standard errors (energy_error, forces_error, stress_error), method, twist or twist set, finite-size\n"
        "correction (not applied) and conventions. A run that was killed goes on with the same command.\n\n"
        "  fnqs-evaluate label foundation --configurations liquid.extxyz --error 0.002 --output labelled.extxyz\n"
        "  fnqs-evaluate label foundation --configurations liquid.extxyz --prefix REF_ --output for_mace.extxyz\n\n"
        "NequIP reads the file as it is (ASE's keys), MACE the keys that begin with REF_. Labels have noise: give the\n"
        "errors to whoever fits them. A Gamma energy of a small cell has shell effects; ask for --twists.",
    )
    add_sampling_options(
        parser,
        prefix="label",
        walkers=64,
        error=2e-3,
        stops="at which sampling stops by itself (default 0.002); with --twists that of the average",
        also="nothing",
    )
    add_length_options(parser)
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        default="",
        help="also write energy, forces and stress under keys that begin so (REF_ for MACE)",
    )
    parser.set_defaults(run=run_label)


def run_label(options: argparse.Namespace) -> int:
    """Measure what is asked for and write the file."""
    if options.prefix and not options.prefix.replace("_", "").isalnum():
        raise InputError(f"--prefix {options.prefix}: letters, digits and underscores only")
    checkpoint = resolve_checkpoint(options.checkpoint)
    output = output_path(options, checkpoint, "label", ()).with_suffix(".extxyz")
    records = read_selected(options.configurations, options.frames)
    settings = ObservableSettings(**settings_of(options), derivatives="all", correlations=True)
    with measured(options, checkpoint, records, settings, output) as run:
        origin = f"{run.provenance['run']} step {checkpoint.step}"
        frames = [
            labelled_atoms(record, total, origin, run.provenance.get("twists"), options.prefix)
            for record, total in zip(records, run.totals, strict=True)
        ]
        write_labels(output, frames)
    doubtful = sum(bool(row.flags) for row in run.rows)
    print(f"written: {output}, {len(frames)} configurations" + (f", {doubtful} with remarks" if doubtful else ""))
    return 0


def write_labels(path: Path, frames: Sequence[Atoms]) -> None:
    """Write frames as extxyz, replacing the file only when the new one is whole.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        ase.io.write(temporary, list(frames), format="extxyz")


def labelled_atoms(
    record: Record, result: ObservablesResult, origin: str, twists: str | None = None, prefix: str = ""
) -> Atoms:
    """Atoms with energy, forces, stress and their errors in ASE's units.

    Args:
        record: the configuration.
        result: what was measured of it.
        origin: run and step.
        twists: description of the twists that were averaged; None for a single twist.
        prefix: of a second copy of the labels; "" for none.

    Raises:
        InputError: no finite energy, or no forces.
    """
    energy, error = result.value("energy")
    if not math.isfinite(energy) or "forces" not in result.quantities:
        raise InputError(f"{record.identifier}: there is no finite energy, or there are no forces, to label it with")
    configuration, number = record.configuration, record.n_atoms
    atoms = Atoms(
        numbers=np.ones(number, int),
        positions=np.asarray(configuration.protons) * units.Bohr,
        cell=np.asarray(configuration.cell) * units.Bohr,
        pbc=True,
    )
    force, pressure = units.Hartree / units.Bohr, units.Hartree / units.Bohr**3
    forces, stress = (result.quantities[name] for name in ("forces", "stress"))
    labels: dict[str, Any] = {
        "energy": energy * number * units.Hartree,
        "forces": np.asarray(forces.values) * force,
        "stress": np.asarray(stress.values) * pressure,
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.arrays["forces_error"] = np.asarray(forces.errors) * force
    info: dict[str, Any] = {
        "name": record.identifier,
        "phase": record.phase,
        "method": f"{METHOD}, {origin}",
        "conventions": CONVENTIONS,
        "energy_error": error * number * units.Hartree,
        "stress_error": np.asarray(stress.errors) * pressure,
        "rs": result.density_parameter,
    }
    if result.twist is None:
        info["twist_averaged"] = True
        info["twists"] = twists or ""
    else:
        info["twist"] = np.array(result.twist)
    if result.finite_size:
        totals = [row["total"] for row in result.finite_size]
        info["finite_size_correction"] = float(np.mean(totals)) * number * units.Hartree
        info["finite_size_spread"] = 0.5 * (max(totals) - min(totals)) * number * units.Hartree
    if result.flags:
        info["remarks"] = "; ".join(result.flags)
    if prefix:
        info[f"{prefix}energy"], info[f"{prefix}stress"] = labels["energy"], labels["stress"]
        atoms.arrays[f"{prefix}forces"] = labels["forces"]
    atoms.info.update(info)
    return atoms
