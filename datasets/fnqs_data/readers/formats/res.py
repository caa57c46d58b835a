"""SHELX .res files as AIRSS writes them; ASE makes one cell of two structures and an energy of the enthalpy.

TITL name pressure volume enthalpy spin |spin| atoms (group) n - copies: GPa, Å^3, eV. The enthalpy is not the energy,
and turning it into one needs the external pressure, which the file need not give; so it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from fnqs.errors import InputError
from fnqs_data.readers.formats.text import floats, reason_of, text_of
from fnqs_data.readers.frame.isotopes import isotope_of, set_isotopes

ENTHALPY = "enthalpy (fourth word of TITL)"


def iterate_res(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it)."""
    structures: list[list[str]] = []
    for line in text_of(path).splitlines():
        if line.split()[:1] == ["TITL"] or not structures:
            structures.append([])
        structures[-1].append(line)
    if len(structures) > 1 and not "".join(structures[0]).strip():
        structures.pop(0)
    for frame in range(len(structures))[wanted]:
        try:
            yield frame, _structure(structures[frame])
        except InputError as error:
            yield frame, error
        except (ValueError, IndexError, AssertionError) as error:
            yield frame, InputError(f"it cannot be read as res ({reason_of(error)})")


def _structure(lines: list[str]) -> Atoms:
    cards = [line.split() for line in lines if line.strip()]
    named = {card[0]: card for card in reversed(cards)}
    if "CELL" not in named or "SFAC" not in named:
        raise InputError("it has no CELL or no SFAC; is the file complete?")
    if any(card[0] == "SYMM" for card in cards) or named.get("LATT", ["LATT", "1"])[1:] != ["-1"]:
        raise InputError(
            "it has symmetry operations (LATT other than -1, or SYMM), which are not applied; give it in P1"
        )
    species = named["SFAC"][1:]
    isotopes = [isotope_of(symbol) for symbol in species]
    if None in isotopes:
        raise InputError(f"it contains {', '.join(species)}; fnqs knows hydrogen only, remove other species")
    start = cards.index(named["SFAC"]) + 1
    ends = [i for i, card in enumerate(cards) if card[0] == "END"]
    if not ends:
        raise InputError("it has no END; is the file complete?")
    cell = cellpar_to_cell(floats(" ".join(named["CELL"][2:]), 6))
    positions, found = [], []
    for card in cards[start : ends[0]]:
        if len(card) < 5 or not card[1].isdigit():
            if card[0] in ("UNIT", "ZERR", "REM", "FVAR", "L.S.", "HKLF", "WGHT", "PLAN"):
                continue
            raise InputError(f"the line {' '.join(card)[:40]!r} is no position; is the file damaged?")
        if len(card) > 5 and float(card[5]) not in (1.0, 11.0):
            raise InputError("a site is occupied partly; give every proton its place")
        positions.append(floats(" ".join(card[2:5]), 3))
        found.append(isotopes[int(card[1]) - 1] or "H")
    atoms = Atoms(f"H{len(positions)}", scaled_positions=np.array(positions).reshape(-1, 3), cell=cell, pbc=True)
    if set(found) - {"H"}:
        set_isotopes(atoms, found)
    _read_title(atoms, named.get("TITL", []))
    return atoms


def _read_title(atoms: Atoms, title: list[str]) -> None:
    """Take what the title says; other programs write other titles, of which nothing is taken."""
    try:
        pressure, volume, enthalpy, spin = (float(word) for word in title[2:6])
        number = int(title[7])
    except (ValueError, IndexError):
        return
    if number != len(atoms):
        raise InputError(f"its title says {number} atoms but {len(atoms)} follow; is the file complete?")
    if not abs(volume - atoms.get_volume()) < 0.01 * volume:
        raise InputError(f"its title gives the volume {volume:g} Å^3 but its cell has {atoms.get_volume():.4g}")
    atoms.info["pressure"] = pressure
    atoms.info["magmom"] = spin
    atoms.info[ENTHALPY] = enthalpy
