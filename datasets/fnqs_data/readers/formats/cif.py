"""CIF, read by ASE, with what ASE passes over: coarse special positions, partly occupied sites, doubtful settings.

A coordinate printed as 0.333 is 1/3 to its last digit. Left as it stands, a symmetry operation that should map the
site onto itself makes a second proton beside it; so thirds and sixths are completed where operations are applied.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.formula import Formula
from ase.io.cif import CIFBlock, parse_cif

from fnqs.errors import InputError
from fnqs.periodic.cell import minimum_image_distances
from fnqs_data.readers.checks.plausible import MOST_PROTONS
from fnqs_data.readers.formats.text import reason_of, text_of

OPERATION = re.compile(r"(?mi)^[^_#\n]*[xyz][^,\n]*,[^,\n]*[xyz][^,\n]*,[^,\n]*[xyz]")
GROUP = re.compile(
    r"(?mi)^_(?:space_group|symmetry)[._](?:it_number|int_tables_number|name_h-m(?:_alt)?|space_group_name_h-m)\s+(.*)$"
)

DOUBLED = 0.15
"""Å; what symmetry makes closer than this is one proton, its coordinates printed too coarsely."""


def iterate_cif(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it), a frame for each block with atoms."""
    text = text_of(path)
    try:
        blocks = [block for block in parse_cif(io.BytesIO(_completed(text).encode())) if block.has_structure()]
    # ASE's parser fails in many ways.
    except Exception as error:
        reason = reason_of(error)
        yield 0, InputError(f"it cannot be read as cif ({reason})")
        return
    for frame in range(len(blocks))[wanted]:
        try:
            yield frame, _structure(blocks[frame])
        except InputError as error:
            yield frame, error
        except Exception as error:
            reason = reason_of(error)
            yield frame, InputError(f"it cannot be read as cif ({reason})")


def _structure(block: CIFBlock) -> Atoms:
    occupancies = _column(block, "_atom_site_occupancy")
    if any(value not in (1, 1.0, ".", "?") for value in occupancies):
        raise InputError("a site is occupied partly; give every proton its place")
    names = _column(block, "_atom_site_label") or _column(block, "_atom_site_type_symbol")
    if len(names) > MOST_PROTONS:
        raise InputError(f"it holds {len(names)} sites, more than the {MOST_PROTONS} protons that are read")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        atoms = block.get_atoms(fractional_occupancies=False)
    if doubts := [str(warning.message) for warning in told if "setting" in str(warning.message)]:
        raise InputError(f"its symmetry is not certain ({' '.join(doubts[0].split())[:150]}); give it in P1")
    if len(atoms) <= MOST_PROTONS and len(atoms) > len(names) and atoms.cell.rank == 3:
        nearest = minimum_image_distances(np.array(atoms.cell), atoms.positions).min()
        if nearest < DOUBLED:
            raise InputError(
                f"its symmetry makes two protons {nearest:.3f} Å apart of one; its coordinates are printed too "
                "coarsely for their special positions, give more digits or P1"
            )
    _check_formula(block, atoms)
    plain = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    if "masses" in atoms.arrays:
        plain.arrays["masses"] = atoms.arrays["masses"]
    return plain


def _column(block: CIFBlock, name: str) -> list:
    """Values of a name for all sites; a block of one site may give one value in place of a list."""
    values = block.get(name)
    return values if isinstance(values, list) else [] if values is None else [values]


def _check_formula(block: CIFBlock, atoms: Atoms) -> None:
    """Refuse a frame without whole formula units: CIF announces no number of atoms, but most give the formula."""
    formula = block.get("_chemical_formula_sum")
    if formula is None:
        return
    unit = len(Formula("".join(str(formula).replace("D", "H").split())))
    if unit and len(atoms) % unit:
        raise InputError(f"it holds {len(atoms)} atoms but its formula has {unit}")
    copies = block.get("_cell_formula_units_z")
    if isinstance(copies, int | float) and copies > 0 and len(atoms) != unit * copies:
        raise InputError(f"it holds {len(atoms)} atoms but its formula, {copies:g} times, has {unit * copies:g}")


def _completed(text: str) -> str:
    """Complete thirds and sixths that are printed with three digits or more, in files that apply symmetry."""
    groups = {name.strip().strip("'\"").replace(" ", "").upper() for name in GROUP.findall(text)}
    if len(OPERATION.findall(text)) <= 1 and groups <= {"1", "P1", "?", "."}:
        return text
    return re.sub(r"(?<![\w.])[-+]?0?\.(\d{3,})(\(\d+\))?(?![\w.])", _third, text)


def _third(match: re.Match[str]) -> str:
    printed = match[0].split("(")[0]
    sixths = round(6 * float(printed))
    if sixths % 6 in (0, 3) or abs(float(printed) - sixths / 6) > 0.51 * 10.0 ** -len(match[1]):
        return match[0]
    return repr(sixths / 6)
