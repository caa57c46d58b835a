"""LAMMPS data files and text dumps, read by ASE, after checks of what it assumes in silence.

ASE takes the number of an atom's type for that of its element, tritium by its mass for helium, every file for one in
metal units, and gives each dump with forces the energy 0.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread, read

from fnqs.errors import InputError
from fnqs_data.readers.formats.text import CUT, ends_within_number, last_lines, reason_of, text_of
from fnqs_data.readers.frame.isotopes import MASSES, isotope_by_mass, set_isotopes

BY_TYPE = "elements (its atoms of type 1 are taken for hydrogen)"
UNITS = ("metal", "real", "electron")
"""Units of LAMMPS in which ASE knows the length."""

MASS_SECTION = re.compile(r"(?ms)^\s*Masses\b[^\n]*\n\s*\n(.*?)(?:\n\s*\n|\Z)")


def iterate_lammps_data(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (0, frame) or (0, what is wrong with it) if frame 0 is wanted."""
    if 0 not in range(1)[wanted]:
        return
    try:
        yield 0, _data(text_of(path))
    except InputError as error:
        yield 0, error
    # ASE's parser fails in many ways.
    except Exception as error:
        yield 0, InputError(f"it cannot be read as lammps-data ({reason_of(error)})")


def _data(text: str) -> Atoms:
    if ends_within_number(*last_lines(text)):
        raise InputError(CUT)
    lines = text.splitlines()
    stated = re.search(r"units\s*=\s*(\w+)", lines[0])
    units = stated[1] if stated else "metal"
    if units not in UNITS:
        raise InputError(f"it is in {units} units; write it in metal units")
    announced = re.search(r"(?m)^\s*(\d+)\s+atoms\s*(?:#.*)?$", text)
    section = re.search(r"(?ms)^\s*Atoms\b[^\n]*\n\s*\n(.*?)(?:\n\s*\n|\n\s*[A-Z][a-z]+[^\n]*\n\s*\n|\Z)", text)
    if announced is None or section is None:
        raise InputError("it has no number of atoms or no Atoms; is the file complete?")
    found = len([line for line in section[1].splitlines() if line.split("#")[0].strip()])
    if found != int(announced[1]):
        raise InputError(f"{announced[1]} atoms are announced, but {found} follow; is the file complete?")
    atoms = read(io.StringIO(text), format="lammps-data", units=units)
    assert isinstance(atoms, Atoms)
    if MASS_SECTION.search(text):
        isotopes = [isotope_by_mass(mass) for mass in atoms.get_masses()]
        if None not in isotopes:
            atoms.numbers[:] = 1
    elif "Atom Type Labels" not in text:
        atoms.info[BY_TYPE] = 1
    return atoms


def iterate_lammps_dump(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it)."""
    steps = re.split(r"(?m)^(?=ITEM: (?:UNITS|TIMESTEP))", text_of(path))
    frames, units = [], None
    for step in steps:
        if step.startswith("ITEM: UNITS"):
            units = step.splitlines()[1].strip() if "\n" in step.strip() else ""
        elif step.startswith("ITEM: TIMESTEP"):
            frames.append((step, units))
    for frame in range(len(frames))[wanted]:
        try:
            yield frame, _dump(*frames[frame])
        except InputError as error:
            yield frame, error
        # ASE's parser fails in many ways.
        except Exception as error:
            yield frame, InputError(f"it cannot be read as lammps-dump-text ({reason_of(error)})")


def _dump(text: str, units: str | None) -> Atoms:
    if ends_within_number(*last_lines(text)):
        raise InputError(CUT)
    if units is not None and units != "metal":
        raise InputError(f"it is in {units} units; write it in metal units")
    columns = re.search(r"(?m)^ITEM: ATOMS\s+(.*)$", text)
    announced = re.search(r"(?m)^ITEM: NUMBER OF ATOMS[^\n]*\n\s*(\d+)", text)
    if columns is None or announced is None:
        raise InputError("it has no number of atoms or no atoms; is the file complete?")
    names = columns[1].split()
    rows = [line.split() for line in text[columns.end() :].splitlines() if line.strip()]
    if len(rows) != int(announced[1]) or any(len(row) != len(names) for row in rows):
        raise InputError(f"{announced[1]} atoms are announced, but {len(rows)} follow; is the file complete?")
    isotopes = None
    if "mass" in names:
        isotopes = [isotope_by_mass(float(row[names.index("mass")])) for row in rows]
    if "element" in names:
        place = names.index("element")
        text = (
            text[: columns.end()]
            + "\n"
            + "\n".join(
                " ".join("H" if i == place and word.upper() in MASSES else word for i, word in enumerate(row))
                for row in rows
            )
            + "\n"
        )
        isotopes = isotopes or [word.upper() if (word := row[place]).upper() in MASSES else None for row in rows]
    if "id" in names and isotopes:
        isotopes = [isotopes[i] for i in np.argsort([int(row[names.index("id")]) for row in rows])]
    (atoms,) = iread(io.StringIO(text), index=slice(None), format="lammps-dump-text")
    if isotopes and None not in isotopes:
        atoms.numbers[:] = 1
        set_isotopes(atoms, [name for name in isotopes if name])
    elif "element" not in names and "mass" not in names:
        atoms.info[BY_TYPE] = 1
    if atoms.calc is not None:
        atoms.calc.results.pop("energy", None)
        if units is None:
            atoms.calc.results.pop("forces", None)
            atoms.info["forces (the file does not state its units)"] = 1
    return atoms
