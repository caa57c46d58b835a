"""Deuterium and tritium: to electrons around static protons they are hydrogen, so they are read and named.

Files write them as D, T, 2H, 3H, or as H with a mass.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from ase import Atoms

MASSES = {"H": 1.008, "D": 2.014, "T": 3.016}
"""Atomic masses in u."""

SYMBOLS = {"H": "H", "D": "D", "T": "T", "1H": "H", "2H": "D", "3H": "T"}
"""How files write them."""

MASS_TOLERANCE = 0.05
"""u; programs round masses to two digits or leave the electron out."""


def isotope_of(symbol: str) -> str | None:
    """Return "H", "D" or "T" for a symbol as files write it, or None for any other element."""
    return SYMBOLS.get(symbol.upper())


def isotope_by_mass(mass: float) -> str | None:
    """Return "H", "D" or "T" for a mass in u, or None."""
    return next((name for name, known in MASSES.items() if abs(mass - known) < MASS_TOLERANCE), None)


def set_isotopes(atoms: Atoms, isotopes: list[str]) -> None:
    """Note each atom's isotope ("H", "D" or "T") as its mass."""
    atoms.arrays["masses"] = np.array([MASSES[isotope] for isotope in isotopes])


def describe_isotopes(atoms: Atoms) -> tuple[str, bool]:
    """Return the isotopes of a frame, "" for protium alone, "D", or "H4 D12"; and whether a mass is of none of them."""
    masses = atoms.arrays.get("masses", atoms.arrays.get("mass"))
    if masses is None or masses.shape != (len(atoms),) or masses.dtype.kind not in "if":
        return "", masses is not None
    names = [isotope_by_mass(mass) if np.isfinite(mass) else "H" for mass in masses]
    counts = Counter(name or "H" for name in names)
    if set(counts) == {"H"}:
        text = ""
    elif len(counts) == 1:
        text = next(iter(counts))
    else:
        text = " ".join(f"{name}{counts[name]}" for name in MASSES if counts[name])
    return text, None in names
