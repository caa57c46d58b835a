"""XYZ files of i-PI: the cell and the units stand in the comment, in one of three notations.

Without a unit in braces, i-PI means atomic units; ASE would find no cell at all.
"""

from __future__ import annotations

import re

import numpy as np
from ase import units
from ase.geometry import cellpar_to_cell

from fnqs.errors import InputError

LENGTHS = {"": units.Bohr, "atomic_unit": units.Bohr, "bohr": units.Bohr, "angstrom": 1.0, "automatic": None}
"""Å for one unit of length as i-PI names them."""

CELL = re.compile(r"CELL[\[({](?P<kind>abcABC|H|GENH)[\])}]\s*:?\s*(?P<numbers>(?:[-+.\dEe]+\s+)+)")
QUANTITY = re.compile(r"(?P<name>[A-Za-z_]+)\{(?P<unit>[A-Za-z_0-9]*)\}")


def as_extxyz(text: str) -> str:
    """Rewrite one frame of i-PI as extended XYZ in Å.

    Raises:
        InputError: if the comment gives no cell, a unit that is not known, or the file holds no positions.
    """
    head, comment, *atoms = text.splitlines()
    found = CELL.search(comment + " ")
    if found is None:
        raise InputError("its comment names a cell of i-PI but gives none that can be read")
    numbers = [float(word) for word in found["numbers"].split()]
    quantities = {
        match["name"].lower(): match["unit"].lower() for match in QUANTITY.finditer(comment) if match["name"] != "CELL"
    }
    others = [name for name in quantities if name not in ("positions", "x_centroid", "cell")]
    if others:
        raise InputError(f"it holds {', '.join(others)}, not positions")
    place = next((quantities[name] for name in ("positions", "x_centroid") if name in quantities), "")
    scale, cell_scale = _length(place), _length(quantities.get("cell", ""))
    if found["kind"] == "abcABC" and len(numbers) >= 6:
        cell = cellpar_to_cell(numbers[:6])
    elif found["kind"] != "abcABC" and len(numbers) >= 9:
        # i-PI keeps lattice vectors as columns, and writes the matrix row by row.
        cell = np.reshape(numbers[:9], (3, 3)).T
    else:
        raise InputError(f"its cell has {len(numbers)} numbers, too few for {found['kind']}")
    lattice = " ".join(repr(float(x)) for x in (cell * cell_scale).ravel())
    lines = [head, f'Lattice="{lattice}" Properties=species:S:1:pos:R:3']
    for line in atoms:
        symbol, *place = line.split()[:4]
        lines.append(f"{symbol} " + " ".join(repr(float(x) * scale) for x in place))
    return "\n".join(lines) + "\n"


def _length(unit: str) -> float:
    length = LENGTHS.get(unit)
    if length is None:
        raise InputError(f"its unit of length {unit!r} is not known; give atomic_unit or angstrom")
    return length
