"""Frames of any file that ASE reads with a cell, in eV and Å, as records in Ha and bohr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs_data.manifest import file_digest
from fnqs_data.readers.extxyz import iterate_extxyz
from fnqs_data.record import Record

REFUSED = ("db", "mysql", "postgresql", "json", "bundletrajectory")
"""Formats that are data bases or folders rather than files of frames."""


def iterate_ase(path: Path, frames: slice | None) -> Iterator[Record | InputError]:
    """Yield each wanted frame as a record, or as the error that says what is wrong with it.

    A file that breaks in the middle ends with an error for the frame that could not be read.

    Raises:
        InputError: if the format is not recognised or not accepted.
    """
    name = str(path.resolve())
    try:
        form = filetype(name)
    except (UnknownFileTypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the format is not recognised ({error}); give extxyz, POSCAR, .traj or another ASE format"
        ) from error
    if form in REFUSED:
        raise InputError(f"{path}: files of format {form} are not read; convert it to extxyz")
    if form == "traj" and path.read_bytes()[:16] == b"PickleTrajectory":
        raise InputError(f"{path}: old pickled trajectories are not read; convert it with ase convert")
    digest = file_digest(path)
    wanted = _counted_from_start(frames)
    found = False
    for frame, atoms in iterate_extxyz(path, wanted) if form == "extxyz" else _other_frames(path, form, wanted):
        found = True
        try:
            if isinstance(atoms, InputError):
                raise atoms
            yield record_from_atoms(atoms, path.name, frame, digest)
        except InputError as error:
            yield InputError(f"{path}: frame {frame}: {error}")
    if not found:
        yield InputError(f"{path}: the file holds no such frames; check the file and the frame range")


def _other_frames(path: Path, form: str, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Frames of any other format; the first one that cannot be read is the last."""
    images = iread(str(path.resolve()), index=wanted, format=form, do_not_split_by_at_sign=True)
    for frame in count(wanted.start or 0, wanted.step or 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(images)
        except StopIteration:
            return
        # Each of ASE's hundred parsers fails in its own way on a broken file.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            yield frame, InputError(f"it cannot be read as {form} ({reason}); is the file damaged?")
            return
        yield frame, atoms


def record_from_atoms(atoms: Atoms, source: str, frame: int, digest: str) -> Record:
    """Convert one ASE frame (eV, Å, GPa, K); info may hold twist, phase, temperature, pressure, energy_error.

    Energies that come with the QMC-HAMM correction terms `fsc_dv_ev` and `fsc_dt_ev` already include them.

    Raises:
        InputError: saying what is wrong with the frame.
    """
    others = sorted({s for s in atoms.get_chemical_symbols() if s != "H"})
    if others:
        raise InputError(f"it contains {', '.join(others)}; fnqs knows hydrogen only, remove other species")
    if len(atoms) == 0:
        raise InputError("it holds no atoms; remove the frame")
    info, results = atoms.info, atoms.calc.results if atoms.calc is not None else {}
    if atoms.cell.rank < 3:
        raise InputError("there is no cell: three lattice vectors are needed, give a Lattice (or a large box)")
    configuration = make_configuration(
        np.array(atoms.cell) / units.Bohr, atoms.positions / units.Bohr, _twist(info.get("twist"))
    )
    energy = _number(results.get("energy", info.get("total_energy")), "energy")
    error = _number(info.get("energy_error", info.get("total_energy_error")), "energy error")
    forces = results.get("forces")
    if forces is not None:
        forces = np.asarray(forces, dtype=np.float64) * units.Bohr / units.Hartree
        if not np.all(np.isfinite(forces)):
            raise InputError("the forces contain NaN or infinity; correct or remove the label")
    return Record(
        configuration=configuration,
        identifier=f"{source}#{frame}",
        phase=str(info.get("phase", "unknown")),
        temperature=_number(info.get("temperature"), "temperature"),
        pressure=_number(info.get("pressure"), "pressure"),
        energy=None if energy is None else energy / units.Hartree,
        energy_error=None if error is None else error / units.Hartree,
        forces=forces,
        method=str(info.get("method", "")),
        corrected=True if "fsc_dv_ev" in info and "fsc_dt_ev" in info else None,
        source=source,
        frame=frame,
        digest=digest,
    )


def _counted_from_start(frames: slice | None) -> slice:
    """Return the slice to read; negative numbers would need the length of the file."""
    wanted = frames or slice(None)
    if any(value is not None and value < 0 for value in (wanted.start, wanted.stop, wanted.step)):
        raise InputError("frames are counted from the start of the file; give a range without negative numbers")
    return wanted


def _twist(value) -> np.ndarray:
    """Twist (3,) from a frame's info; zero if it has none."""
    if value is None:
        return np.zeros(3)
    try:
        twist = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError(f"its twist {value!r} is not three numbers") from error
    if twist.shape != (3,):
        raise InputError(f"its twist {value!r} is not three numbers")
    return twist


def _number(value, what: str) -> float | None:
    """Return a finite label, or None if there is none."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"its {what} {value!r} is not a number; correct or remove the label") from error
    if not np.isfinite(number):
        raise InputError(f"its {what} is {number}; correct or remove the label")
    return number
