"""Geometry files of FHI-aims (geometry.in): a few keywords, read here; ASE is about to give its reader away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from fnqs.errors import InputError
from fnqs_data.readers.formats.text import CUT, ends_within_number, floats, last_lines, reason_of, text_of
from fnqs_data.readers.frame.isotopes import isotope_of, set_isotopes

OF_NO_CONCERN = ("constrain_relaxation", "velocity", "hessian_block", "set_vacuum_level")
"""Keywords that change neither the structure nor its electrons."""


def iterate_aims(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (0, frame) or (0, what is wrong with it) if frame 0 is wanted."""
    if 0 not in range(1)[wanted]:
        return
    try:
        yield 0, _geometry(text_of(path))
    except InputError as error:
        yield 0, error
    except (ValueError, IndexError, np.linalg.LinAlgError) as error:
        yield 0, InputError(f"it cannot be read as aims ({reason_of(error)})")


def _geometry(text: str) -> Atoms:
    if ends_within_number(*last_lines(text)):
        raise InputError(CUT)
    cell, places, fractional, isotopes = [], [], [], []
    charges, moments = [], []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words or words[0] in OF_NO_CONCERN:
            continue
        if words[0] == "lattice_vector":
            cell.append(floats(" ".join(words[1:]), 3))
        elif words[0] in ("atom", "atom_frac"):
            if len(words) != 5:
                raise InputError("a line of an atom has not three numbers and a species; is the file damaged?")
            # Species may be numbered by the user, as in H1.
            isotope = isotope_of(words[4]) or isotope_of(words[4].rstrip("0123456789"))
            if isotope is None:
                raise InputError(f"it contains {words[4]}; fnqs knows hydrogen only, remove other species")
            places.append(floats(" ".join(words[1:]), 3))
            fractional.append(words[0] == "atom_frac")
            isotopes.append(isotope)
            charges.append(0.0)
            moments.append(0.0)
        elif words[0] in ("initial_charge", "initial_moment") and places:
            (charges if words[0] == "initial_charge" else moments)[-1] = float(words[1])
        else:
            raise InputError(f"it holds more than atoms and a cell ({words[0]}); give those alone")
    if len(cell) != 3:
        raise InputError("there is no cell: three lattice vectors are needed")
    positions = np.array(places).reshape(-1, 3)
    inside = np.array(fractional, dtype=bool)
    positions[inside] = positions[inside] @ np.array(cell)
    atoms = Atoms(f"H{len(places)}", positions=positions, cell=cell, pbc=True)
    atoms.set_initial_charges(charges)
    atoms.set_initial_magnetic_moments(moments)
    if set(isotopes) - {"H"}:
        set_isotopes(atoms, isotopes)
    return atoms
