"""The newer QMC-HAMM HDF5 layout: attributes of the root, and arrays in `structure` and `observables`.

A missing label may be absent or filled with NaN; the writers of the data base do both. Its stresses come from
several codes with either sign, so one is kept only where the file's own pressure settles sign and unit.
"""

from __future__ import annotations

import h5py
import numpy as np
from ase import units

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs_data.readers.checks.plausible import MOST_PROTONS, check_geometry, find_implausible
from fnqs_data.readers.formats.hdf5_nodes import dataset_at
from fnqs_data.readers.frame.labels import forces_label, number_label, to_hartree
from fnqs_data.readers.notes import Notes
from fnqs_data.store.record import Record

CORRECTION_TOLERANCE = 1e-6
"""eV; energies of thousands of eV carry rounding of 1e-12 of themselves through two sums."""

PRESSURE_TOLERANCE = 0.01
"""Relative; a file's pressure is rounded, and it only has to tell two signs and a factor of 160 apart."""


def record_from_arrays(file: h5py.File, source: str, digest: str, notes: Notes) -> Record:
    """Read the one configuration of a file: Å, eV, eV/Å, GPa and K inside.

    Args:
        file: open; `natoms`, `method`, `temperature`, `pressure`, `rs`, `phase` are attributes of its root.
        source: name of the file.
        digest: of that file.
        notes: takes what is not read.

    Raises:
        InputError: saying what is missing or wrong, without the file's name.
    """
    number = number_label(_attribute(file, "natoms"), "natoms")
    if number is None or not 0 < number <= MOST_PROTONS or number % 1:
        raise InputError(f"natoms is {number}, not a number of protons up to {MOST_PROTONS}; is the file damaged?")
    number = int(number)
    species = {_text(name) for name in np.atleast_1d(_attribute(file, "species", ["H"]))}
    if species != {"H"}:
        raise InputError(f"it contains {', '.join(sorted(species))}; fnqs knows hydrogen only, remove other species")
    cell = _required(file, "structure/lattice_vectors", (3, 3)) / units.Bohr
    protons = _required(file, "structure/positions", (number, 3)) / units.Bohr
    check_geometry(cell, protons)
    total, potential, kinetic, uncorrected = (
        _scalar(file, f"observables/{name}")
        for name in ("total_energy", "fsc_potential_energy", "fsc_kinetic_energy", "total_energy_uncorrected")
    )
    forces = forces_label(_array(file, "observables/forces", (number, 3)), number)
    record = Record(
        configuration=make_configuration(cell, protons),
        identifier=f"{source}#0",
        phase=_text(_attribute(file, "phase", "unknown")),
        temperature=_label(_attribute(file, "temperature"), "temperature"),
        pressure=_label(_attribute(file, "pressure"), "pressure"),
        energy=to_hartree(total),
        energy_error=to_hartree(_scalar(file, "observables/total_energy_error")),
        forces=None if forces is None else forces * units.Bohr / units.Hartree,
        stress=_stress(file),
        method=_method(file),
        corrected=_corrected(file, total, potential, kinetic, uncorrected),
        potential_correction=to_hartree(potential),
        kinetic_correction=to_hartree(kinetic),
        source=source,
        frame=0,
        digest=digest,
    )
    if fault := find_implausible(record, _label(_attribute(file, "rs"), "r_s"), notes=notes):
        raise InputError(fault)
    if record.stress is None and dataset_at(file, "observables/stress") is not None:
        notes.unread(["observables/stress (the file's pressure does not settle its sign and unit)"])
    return record


def _corrected(file: h5py.File, total, potential, kinetic, uncorrected) -> bool | None:
    """Whether the total energy includes the corrections: from the numbers if they are there, else as the file says."""
    if None not in (total, potential, kinetic, uncorrected):
        if abs(total - uncorrected - potential - kinetic) < CORRECTION_TOLERANCE:
            return True
        if abs(total - uncorrected) < CORRECTION_TOLERANCE:
            return False
        raise InputError(
            "total_energy is neither total_energy_uncorrected nor that with the corrections added; is the file damaged?"
        )
    if dataset_at(file, "observables/total_energy") is None:
        return None
    stated = file["observables"].attrs.get("finite_size_corrected")
    return None if stated is None or np.size(stated) != 1 else bool(np.reshape(stated, ())[()])


def _stress(file: h5py.File) -> np.ndarray | None:
    """Stress (3, 3) in Ha/bohr^3, positive under tension, if `observables/pressure` (GPa) confirms its trace."""
    stress, pressure = _array(file, "observables/stress", (3, 3)), _scalar(file, "observables/pressure")
    if stress is None or not pressure or not np.allclose(stress, stress.T, rtol=1e-6, atol=1e-6 * abs(pressure)):
        return None
    ratio = -np.trace(stress) / 3 / pressure
    if not abs(abs(ratio) - 1) < PRESSURE_TOLERANCE:
        return None
    return np.sign(ratio) * stress * units.GPa * units.Bohr**3 / units.Hartree


def _method(file: h5py.File) -> str:
    """How the labels were computed: the method and its key words."""
    method = _text(_attribute(file, "method", ""))
    words = ", ".join(_text(word) for word in np.atleast_1d(_attribute(file, "method_kws", [])))
    return f"{method} ({words})" if words else method


def _required(file: h5py.File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = _array(file, name, shape, all_nan_is_absent=False)
    if array is None:
        raise InputError(f"it has no {name}; is this a QMC-HAMM file?")
    return array


def _array(file: h5py.File, name: str, shape: tuple[int, ...], all_nan_is_absent: bool = True) -> np.ndarray | None:
    """Numbers of a given shape, with or without a leading axis of length one; None if absent or only NaN."""
    node = dataset_at(file, name)
    if node is None:
        return None
    if node.shape not in (shape, (1, *shape)) or node.dtype.kind not in "iuf":
        raise InputError(
            f"{name} is of shape {node.shape} and type {node.dtype}, not numbers of shape {shape}; is the file damaged?"
        )
    array = np.asarray(node[()], dtype=np.float64).reshape(shape)
    return None if all_nan_is_absent and np.all(np.isnan(array)) else array


def _scalar(file: h5py.File, name: str) -> float | None:
    array = _array(file, name, ())
    return None if array is None else number_label(array, name)


def _attribute(file: h5py.File, name: str, default=None):
    return file.attrs.get(name, default)


def _label(value, what: str) -> float | None:
    """Return the finite number of an attribute, None if absent or NaN."""
    if isinstance(value, float | np.floating) and np.isnan(value):
        return None
    return number_label(value, what)


def _text(value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
