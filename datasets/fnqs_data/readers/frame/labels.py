"""Labels of a frame under the names that files in use give them; what is there and not read is named.

Names are compared without regard to case. Energies are eV of the whole cell, forces eV/Å, stresses eV/Å^3,
positive under tension and in the order xx yy zz yz xz xy where they are six numbers; a virial is minus the
volume times the stress, in eV. A free energy is never taken for the energy: it counts the entropy of hot electrons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_stress

from fnqs.errors import InputError
from fnqs_data.readers.options import ReadOptions

_ENERGIES = ("energy", "total_energy", "totenergy", "reference_energy")
_FORCES = ("forces", "force", "reference_forces", "reference_force")
_SOURCES = ("ref", "dft")

ENERGY = (*_ENERGIES, *(f"{source}_energy" for source in _SOURCES))
FORCES = (*_FORCES, *(f"{source}_{name}" for source in _SOURCES for name in ("forces", "force")))
STRESS = ("stress", *(f"{source}_stress" for source in _SOURCES))
VIRIAL = tuple(f"{prefix}{name}" for prefix in ("", "ref_", "dft_") for name in ("virial", "virials"))
CHARGE = ("charge", "total_charge", "net_charge")
ENERGY_ERROR = ("energy_error", "total_energy_error")
TAKEN = ("twist", "phase", "temperature", "pressure", "method", "rs", "trajectory", "fsc_dv_ev", "fsc_dt_ev")
"""Names that are recognised, in lower case."""

SILENT = ("numbers", "positions", "tags", "id", "type", "name", "uuid", "iconf", "comment", "timestep", "time", "step")
"""What is there in most files and says nothing about the physics of a frame."""

CHECKED = ("initial_magmoms", "initial_charges", "charges", "magmom", "magmoms", "masses", "mass", *CHARGE)
"""What only has to agree with what we assume."""

SAME = 1e-6
"""Relative difference under which two labels are one, written with different digits."""

STRESS_SAME = 1e-4
"""The same for a stress and a virial, which a volume connects."""


@dataclass(frozen=True)
class Labels:
    """What a frame says, in its own units.

    Attributes:
        energy: eV, whole cell, or None.
        energy_error: eV, or None.
        forces: (N, 3) eV/Å, or None.
        stress: (3, 3) eV/Å^3, positive under tension, or None.
        unread: names of what is there and not read.
    """

    energy: float | None
    energy_error: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    unread: tuple[str, ...]


def labels_of(atoms: Atoms, options: ReadOptions) -> Labels:
    """Find the labels of a frame.

    Raises:
        InputError: if a label is no finite number or has a wrong shape, if two names give different values, or
            if the frame lacks a name that the user gave.
    """
    values = _values(atoms)
    arrays = {name: array for name, array in atoms.arrays.items() if name not in ("numbers", "positions")}
    energy_names = _named(values, ENERGY, options.energy_key, "--energy-key")
    force_names = _named({**arrays, **values}, FORCES, options.forces_key, "--forces-key")
    stress_names = _named(values, STRESS, options.stress_key, "--stress-key")
    virial_names = _named(values, VIRIAL, options.virial_key, "--virial-key")
    error_names = _named(values, ENERGY_ERROR, None, "")
    volume = atoms.get_volume()
    stresses = {name: full_stress(values[name], name) for name in stress_names}
    stresses |= {name: -full_stress(values[name], name) / volume for name in virial_names}
    energy = _one({name: number_label(values[name], name) for name in energy_names}, SAME, "--energy-key")
    forces = _one(
        {name: forces_label({**arrays, **values}[name], len(atoms), name) for name in force_names}, SAME, "--forces-key"
    )
    stress = _one(stresses, STRESS_SAME, "--stress-key or --virial-key")
    error = _one({name: number_label(values[name], name) for name in error_names}, SAME, "")
    read = {*energy_names, *force_names, *stress_names, *virial_names, *error_names}
    unread = [
        name for name, value in {**arrays, **values}.items() if name not in read and _is_told(name, value, energy)
    ]
    if not np.all(atoms.pbc):
        unread.append("pbc (the cell counts as periodic along all three vectors)")
    return Labels(energy, error, forces, stress, tuple(dict.fromkeys(unread)))


def total_charge(atoms: Atoms) -> float:
    """Return the charge that a frame states, of the cell or summed over its atoms, in units of e; 0 if it states none.

    Raises:
        InputError: if a charge is no finite number.
    """
    values = _values(atoms)
    stated = [number_label(values[name], name) or 0.0 for name in values if name.lower() in CHARGE]
    sums = []
    for array in (atoms.arrays.get("initial_charges"), values.get("charges")):
        if array is not None:
            charge = number_label(np.sum(np.asarray(array)), "sum of charges") or 0.0
            # Partial charges of atoms are rounded; a charged cell misses a whole one.
            sums.append(charge if abs(charge) > 0.5 else 0.0)
    return max((*stated, *sums), key=abs, default=0.0)


def number_label(value, what: str) -> float | None:
    """Return a finite label, or None if there is none; raises InputError for anything else."""
    if value is None:
        return None
    try:
        # A flag (T, F) is no number, though Python would take it for one.
        array = np.asarray(value)
        number = np.nan if array.dtype == bool else float(array.reshape(()) if array.size == 1 else value)
    except (TypeError, ValueError) as error:
        raise InputError(f"its {what} {str(value)[:40]!r} is not a number; correct or remove the label") from error
    if not np.isfinite(number):
        raise InputError(f"its {what} is {str(value)[:40]}; correct or remove the label")
    return number


def forces_label(value, number: int, what: str = "forces") -> np.ndarray | None:
    """Return forces (N, 3) as they stand, None if there are none; raises InputError for other shapes or NaN."""
    return None if value is None else _numbers(value, (number, 3), what)


def full_stress(value, what: str) -> np.ndarray:
    """Return (3, 3) of six numbers (xx yy zz yz xz xy) or nine; raises InputError if they are no symmetric tensor."""
    if np.size(value) == 6:
        return voigt_6_to_full_3x3_stress(_numbers(value, (6,), what))
    tensor = _numbers(np.reshape(value, (3, 3)) if np.size(value) == 9 else value, (3, 3), what)
    if not np.allclose(tensor, tensor.T, rtol=1e-3, atol=1e-3 * np.abs(tensor).max()):
        raise InputError(f"its {what} is not symmetric; correct or remove the label")
    return (tensor + tensor.T) / 2


def _values(atoms: Atoms) -> dict[str, Any]:
    """Everything that a frame says of itself as a whole or of its atoms by a calculator."""
    results = atoms.calc.results if atoms.calc is not None else {}
    return {**{name: value for name, value in results.items() if value is not None}, **atoms.info}


def _named(values: Mapping[str, Any], known: Iterable[str], wanted: str | None, option: str) -> list[str]:
    """Names under which a label stands: the one that the user gave, or all that are recognised."""
    if wanted is None:
        return [name for name in values if name.lower() in known]
    if wanted not in values:
        raise InputError(f"it has no {wanted!r} ({option}); it has {', '.join(sorted(values)) or 'no labels'}")
    return [wanted]


def _one(found: dict[str, Any], tolerance: float, option: str):
    """Return the one value of all names, None if there is none; raises InputError if they differ."""
    values = list(found.values())
    for value in values[1:]:
        if not np.allclose(value, values[0], rtol=tolerance, atol=tolerance * float(np.abs(values[0]).max())):
            cure = f"name the right one with {option}" if option else "correct or remove one"
            raise InputError(f"its labels {' and '.join(found)} differ; {cure}")
    return values[0] if values else None


def _is_told(name: str, value, energy: float | None) -> bool:
    """Whether a name that is not read deserves a mention: numbers that may be a label do."""
    lower = name.lower()
    if lower in TAKEN or lower in SILENT or lower in CHECKED or np.asarray(value).dtype.kind not in "iufc":
        return False
    # Without smearing, codes write the energy once more under this name.
    return not (lower == "free_energy" and energy is not None and np.size(value) == 1 and np.all(value == energy))


def _numbers(value, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Finite float64 numbers of a given shape; raises InputError."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"its {what} holds what is no number; correct or remove the label") from error
    if array.shape != shape:
        raise InputError(f"its {what} is of shape {array.shape}, not {shape}; correct or remove the label")
    if not np.all(np.isfinite(array)):
        raise InputError(f"the numbers of its {what} contain NaN or infinity; correct or remove the label")
    return array


def to_hartree(energy: float | None) -> float | None:
    """Convert an energy from eV to Ha, None if there is none."""
    return None if energy is None else energy / units.Hartree
