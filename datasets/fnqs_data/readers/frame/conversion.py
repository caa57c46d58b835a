"""One ASE frame (eV, Å, GPa, K) as a record in Ha and bohr."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from fnqs.configuration import find_twist_fault, make_configuration
from fnqs.errors import InputError
from fnqs_data.readers.checks.plausible import check_geometry, find_implausible
from fnqs_data.readers.frame.isotopes import describe_isotopes
from fnqs_data.readers.frame.labels import labels_of, number_label, to_hartree, total_charge
from fnqs_data.readers.notes import Notes
from fnqs_data.readers.options import ReadOptions
from fnqs_data.store.record import Record

SMALLEST_MOMENT = 0.01
"""Total magnetic moment (electrons) that is taken for a spin polarisation, not for rounding."""

QMC_HAMM_METHOD = "QMC (QMC-HAMM)"
"""What labelled the frames of that data base; their own `method` names the dynamics that made them."""


def record_from_atoms(
    atoms: Atoms, source: str, frame: int, digest: str, options: ReadOptions | None = None, notes: Notes | None = None
) -> Record:
    """Convert one frame; its info may hold twist, phase, temperature, pressure, energy_error, method and rs.

    Energies that come with the QMC-HAMM correction terms `fsc_dv_ev` and `fsc_dt_ev` already include them.
    The frame is periodic along all three lattice vectors, whatever its pbc flags say.

    Args:
        atoms: with labels as `labels` describes them.
        source: name of the file.
        frame: its frame there.
        digest: of that file.
        options: names of labels that the user gave.
        notes: takes what the frame says and nobody reads.

    Raises:
        InputError: saying what is wrong with the frame, without its name.
    """
    # From numbers, not symbols: a damaged number need not be that of an element.
    if others := sorted({int(z) for z in atoms.numbers} - {1}):
        names = Atoms([z for z in others if 0 <= z < 119]).get_chemical_symbols() or [f"Z = {others[0]}"]
        raise InputError(f"it contains {', '.join(names)}; fnqs knows hydrogen only, remove other species")
    if len(atoms) == 0:
        raise InputError("it holds no atoms; remove the frame")
    info = atoms.info
    if atoms.cell.rank < 3:
        raise InputError("there is no cell: three lattice vectors are needed, give a Lattice (or a large box)")
    cell, protons = np.array(atoms.cell) / units.Bohr, atoms.positions / units.Bohr
    check_geometry(cell, protons)
    _check_electrons(atoms)
    configuration = make_configuration(cell, protons, _twist(info.get("twist")))
    labels = labels_of(atoms, options or ReadOptions())
    isotope, odd_mass = describe_isotopes(atoms)
    corrections = [to_hartree(number_label(info.get(key), "correction")) for key in ("fsc_dv_ev", "fsc_dt_ev")]
    qmc_hamm = None not in corrections
    record = Record(
        configuration=configuration,
        identifier=f"{source}#{frame}",
        phase=str(info.get("phase", "unknown")),
        temperature=number_label(info.get("temperature"), "temperature"),
        pressure=number_label(info.get("pressure"), "pressure"),
        energy=to_hartree(labels.energy),
        energy_error=to_hartree(labels.energy_error),
        forces=None if labels.forces is None else labels.forces * units.Bohr / units.Hartree,
        stress=None if labels.stress is None else labels.stress * units.Bohr**3 / units.Hartree,
        method=QMC_HAMM_METHOD if qmc_hamm else str(info.get("method", "")),
        corrected=True if qmc_hamm else None,
        potential_correction=corrections[0],
        kinetic_correction=corrections[1],
        trajectory=str(info.get("trajectory", ""))[:100],
        isotope=isotope,
        source=source,
        frame=frame,
        digest=digest,
    )
    notes = notes if notes is not None else Notes()
    stated_r_s, twist_known = number_label(info.get("rs"), "r_s"), info.get("twist") is not None
    if fault := find_implausible(record, stated_r_s, twist_known=twist_known, notes=notes):
        raise InputError(fault)
    notes.unread((*labels.unread, *(("masses",) if odd_mass else ())))
    return record


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
    if charge := total_charge(atoms):
        raise InputError(f"its charge is {charge:g}; fnqs knows neutral cells only, with one electron for each proton")
    results = atoms.calc.results if atoms.calc is not None else {}
    moments = [atoms.get_initial_magnetic_moments()]
    moments += [{**results, **atoms.info}.get(name, 0.0) for name in ("magmoms", "magmom")]
    try:
        largest = max(float(np.abs(np.sum(np.asarray(moment, np.float64), axis=0)).max()) for moment in moments)
    except (TypeError, ValueError) as error:
        raise InputError("its magnetic moments are not numbers; correct or remove them") from error
    if not largest < SMALLEST_MOMENT:
        raise InputError(
            f"its magnetic moment is {largest:g}; fnqs knows unpolarised electrons only, as many spins up as down"
        )
