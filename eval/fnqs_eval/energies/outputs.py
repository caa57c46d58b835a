"""Evaluated energies as CSV and as extxyz."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from fnqs.cli.files import atomic_write, write_text_atomic
from fnqs_data.store.record import Record
from fnqs_eval.energies.table import EnergyResult

METHOD = "fnqs variational Monte Carlo"
"""What the extxyz file says of its energies."""

COLUMNS = (
    ("configuration", "identifier"),
    ("N", "number"),
    ("r_s_bohr", "density_parameter"),
    ("phase", "phase"),
    ("steps", "steps"),
    ("energy_per_atom_Ha", "energy_per_atom"),
    ("error_per_atom_Ha", "error_per_atom"),
    ("relative_energy_Ha", "relative_energy"),
    ("relative_error_Ha", "relative_error"),
    ("variance_per_atom_Ha2", "variance_per_atom"),
    ("acceptance", "acceptance"),
    ("effective_samples", "effective_samples"),
    ("distance_from_training", "distance"),
    ("reliability", "reliability"),
    ("label_energy_per_atom_Ha", "label_energy_per_atom"),
    ("label_convention", "label_convention"),
)
"""Heading and attribute of every column of the CSV but those of the twist and the flags."""


def write_csv(path: str | os.PathLike, results: Sequence[EnergyResult]) -> None:
    """Write one line a result, units in the headings; what is missing or not finite stays empty.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    twist_columns = ["twist_1", "twist_2", "twist_3", "twist_weight"]
    writer.writerow([name for name, _ in COLUMNS] + twist_columns + ["flags"])
    for result in results:
        twist = ["average"] * 3 if result.twist is None else [_cell(x) for x in result.twist]
        values = [_cell(getattr(result, attribute)) for _, attribute in COLUMNS]
        writer.writerow([*values, *twist, _cell(result.weight), "; ".join(result.flags)])
    write_text_atomic(path, text.getvalue())


def write_extxyz(path: str | os.PathLike, records: Sequence[Record], results: Sequence[EnergyResult]) -> None:
    """Write every configuration with its energy, in eV and angstrom as ASE has them.

    Args:
        path: the file.
        records: configurations.
        results: their energies, in the same order; one that is not finite is left out of its frame.

    Raises:
        OSError: the file cannot be written.
    """
    frames = []
    for record, result in zip(records, results, strict=True):
        configuration = record.configuration
        atoms = Atoms(
            numbers=np.ones(record.n_atoms, int),
            positions=np.asarray(configuration.protons) * units.Bohr,
            cell=np.asarray(configuration.cell) * units.Bohr,
            pbc=True,
        )
        info: dict[str, Any] = {"name": record.identifier, "phase": record.phase, "method": METHOD}
        if result.twist is None:  # a reader takes `twist` for three numbers
            info["twist_averaged"] = True
        else:
            info["twist"] = np.array(result.twist)
        if result.reliability:
            info["reliability"] = result.reliability
        if math.isfinite(result.energy_per_atom):
            whole = result.energy_per_atom * record.n_atoms * units.Hartree
            info["energy_error"] = result.error_per_atom * record.n_atoms * units.Hartree
            atoms.calc = SinglePointCalculator(atoms, energy=whole)
        atoms.info.update(info)
        frames.append(atoms)
    with atomic_write(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value
