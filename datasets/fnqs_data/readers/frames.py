"""One ASE frame (eV, Å, GPa, K) as a record in Ha and bohr."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_stress

from fnqs.configuration import find_twist_fault, make_configuration
from fnqs.errors import InputError
from fnqs_data.readers.plausible import check_geometry, find_implausible
from fnqs_data.store.record import Record

SMALLEST_MOMENT = 0.01
"""Total magnetic moment (electrons) that is taken for a spin polarisation, not for rounding."""

QMC_HAMM_METHOD = "QMC (QMC-HAMM)"
"""What labelled the frames of that data base; their own `method` names the dynamics that made them."""


def record_from_atoms(atoms: Atoms, source: str, frame: int, digest: str) -> Record:
    """Convert one frame; its info may hold twist, phase, temperature, pressure, energy_error, method and rs.

    Energies that come with the QMC-HAMM correction terms `fsc_dv_ev` and `fsc_dt_ev` already include them.
    The frame is periodic along all three lattice vectors, whatever its pbc flags say.

    Args:
        atoms: with results in eV, eV/Å and eV/Å^3 (stress positive under tension, as ASE has it).
        source: name of the file.
        frame: its frame there.
        digest: of that file.

    Raises:
        InputError: saying what is wrong with the frame, without its name.
    """
    # From numbers, not symbols: a damaged number need not be that of an element.
    if others := sorted({int(z) for z in atoms.numbers} - {1}):
        names = Atoms([z for z in others if 0 <= z < 119]).get_chemical_symbols() or [f"Z = {others[0]}"]
        raise InputError(f"it contains {', '.join(names)}; fnqs knows hydrogen only, remove other species")
    if len(atoms) == 0:
        raise InputError("it holds no atoms; remove the frame")
    info, results = atoms.info, atoms.calc.results if atoms.calc is not None else {}
    if atoms.cell.rank < 3:
        raise InputError("there is no cell: three lattice vectors are needed, give a Lattice (or a large box)")
    cell, protons = np.array(atoms.cell) / units.Bohr, atoms.positions / units.Bohr
    check_geometry(cell, protons)
    _check_electrons(atoms)
    corrections = [to_hartree(number_label(info.get(key), "correction")) for key in ("fsc_dv_ev", "fsc_dt_ev")]
    qmc_hamm = None not in corrections
    record = Record(
        configuration=make_configuration(cell, protons, _twist(info.get("twist"))),
        identifier=f"{source}#{frame}",
        phase=str(info.get("phase", "unknown")),
        temperature=number_label(info.get("temperature"), "temperature"),
        pressure=number_label(info.get("pressure"), "pressure"),
        energy=to_hartree(number_label(results.get("energy", info.get("total_energy")), "energy")),
        energy_error=to_hartree(number_label(info.get("energy_error", info.get("total_energy_error")), "energy error")),
        forces=forces_label(results.get("forces"), len(atoms)),
        stress=_stress(results.get("stress")),
        method=QMC_HAMM_METHOD if qmc_hamm else str(info.get("method", "")),
        corrected=True if qmc_hamm else None,
        potential_correction=corrections[0],
        kinetic_correction=corrections[1],
        trajectory=str(info.get("trajectory", ""))[:100],
        source=source,
        frame=frame,
        digest=digest,
    )
    if fault := find_implausible(record, number_label(info.get("rs"), "r_s")):
        raise InputError(fault)
    return record


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


def to_hartree(energy: float | None) -> float | None:
    """Convert an energy from eV to Ha, None if there is none."""
    return None if energy is None else energy / units.Hartree


def forces_label(value, number: int) -> np.ndarray | None:
    """Convert forces (N, 3) from eV/Å to Ha/bohr, None if there are none; raises InputError."""
    if value is None:
        return None
    forces = _numbers(value, (number, 3), "forces")
    return forces * units.Bohr / units.Hartree


def _stress(value) -> np.ndarray | None:
    """Stress (3, 3) in Ha/bohr^3 of six or nine numbers in eV/Å^3."""
    if value is None:
        return None
    if np.size(value) == 6:
        value = voigt_6_to_full_3x3_stress(_numbers(value, (6,), "stress"))
    return _numbers(value, (3, 3), "stress") * units.Bohr**3 / units.Hartree


def _numbers(value, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Finite float64 numbers of a given shape; raises InputError."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {what} are not numbers; correct or remove the label") from error
    if array.shape != shape:
        raise InputError(f"the {what} have the shape {array.shape}, not {shape}; correct or remove the label")
    if not np.all(np.isfinite(array)):
        raise InputError(f"the {what} contain NaN or infinity; correct or remove the label")
    return array


def _twist(value) -> np.ndarray:
    """Twist (3,) from a frame's info; zero if it has none."""
    if value is None:
        return np.zeros(3)
    try:
        twist = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError(f"its twist {str(value)[:40]!r} is not three numbers") from error
    if twist.shape != (3,):
        raise InputError(f"its twist {str(value)[:40]!r} is not three numbers")
    if np.all(np.isfinite(twist)) and (fault := find_twist_fault(twist)):
        raise InputError(fault)
    return twist


def _check_electrons(atoms: Atoms) -> None:
    """Refuse what is said to be charged or spin-polarised."""
    charge = number_label(atoms.info.get("charge"), "charge")
    if charge:
        raise InputError(f"its charge is {charge:g}; fnqs knows neutral cells only, with one electron for each proton")
    results = atoms.calc.results if atoms.calc is not None else {}
    moments = [atoms.get_initial_magnetic_moments(), results.get("magmoms", 0.0), results.get("magmom", 0.0)]
    try:
        largest = max(float(np.abs(np.sum(np.asarray(moment, np.float64), axis=0)).max()) for moment in moments)
    except (TypeError, ValueError) as error:
        raise InputError("its magnetic moments are not numbers; correct or remove them") from error
    if not largest < SMALLEST_MOMENT:
        raise InputError(
            f"its magnetic moment is {largest:g}; fnqs knows unpolarised electrons only, as many spins up as down"
        )
