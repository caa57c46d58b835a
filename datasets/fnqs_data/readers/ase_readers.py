"""Frames of any file that ASE reads with a cell, as records."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from lzma import LZMAError
from pathlib import Path

from ase import Atoms
from ase.formula import Formula
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, get_compression, ioformats

from fnqs.errors import InputError
from fnqs_data.readers.extxyz import ends_within_number
from fnqs_data.readers.frames import record_from_atoms
from fnqs_data.readers.trajectory import iterate_trajectory
from fnqs_data.store.manifest import file_digest
from fnqs_data.store.record import Record

REFUSED = {
    "db": "a data base",
    "json": "a data base",
    "mysql": "a data base on a server",
    "postgresql": "a data base on a server",
    "bundletrajectory": "a folder whose parts may be pickled",
    "castep-cell": "whose reader starts the program CASTEP",
    "gpw": "a binary file without checks",
    "lammps-dump-binary": "a binary file without checks",
    "cp2k-dcd": "a binary file without checks",
    "netcdftrajectory": "a binary file without checks",
    "abinit-gsr": "a binary file without checks",
}
"""ASE formats that are no files of frames, that fetch or may run what they hold, or that only a crash would stop.

Pickled files (old .traj, .pckl) have no reader here at all, and plug-ins that bring formats to ASE are not run.
"""

LARGEST_TEXT = 64 << 20
"""Bytes of a file that ASE takes into memory as a whole; extxyz and .traj are read frame by frame, of any size."""


def iterate_other(path: Path, frames: slice) -> Iterator[Record | InputError]:
    """Yield the frames of a file that is neither HDF5 nor extxyz, and errors for those that are wrong.

    A file that breaks in the middle ends with an error for the frame that could not be read.

    Raises:
        InputError: if the format is not recognised or not accepted.
    """
    form = format_of(path)
    yield from records_of(path, iterate_trajectory(path, frames) if form == "traj" else _frames(path, form, frames))


def records_of(path: Path, frames: Iterable[tuple[int, Atoms | InputError]]) -> Iterator[Record | InputError]:
    """Turn frames (number, ASE frame or what is wrong with it) into records, naming the file in what is wrong."""
    digest = file_digest(path)
    found = False
    for frame, atoms in frames:
        found = True
        try:
            if isinstance(atoms, InputError):
                raise atoms
            record = record_from_atoms(atoms, path.name, frame, digest)
        except InputError as error:
            yield InputError(f"{path}: frame {frame}: {error}")
        else:
            yield record
    if not found:
        yield InputError(f"{path}: the file holds no such frames; check the file and the frame range")


def format_of(path: Path) -> str:
    """Return ASE's name of a file's format.

    Raises:
        InputError: if the format is not recognised or not accepted.
    """
    try:
        form = filetype(str(path.resolve()))
    except (UnknownFileTypeError, UnicodeDecodeError, EOFError, OSError, zlib.error, LZMAError) as error:
        raise InputError(
            f"{path}: the format is not recognised ({error}); give extxyz, POSCAR, .traj or another ASE format"
        ) from error
    with path.open("rb") as file:
        pickled = file.read(16) == b"PickleTrajectory"
    if pickled:
        raise InputError(f"{path}: old pickled trajectories are not read; convert it with ase convert")
    if form in REFUSED:
        raise InputError(f"{path}: files of format {form} ({REFUSED[form]}) are not read; convert it to extxyz")
    if form not in ioformats or not ioformats[form].module_name.startswith("ase.io."):
        raise InputError(f"{path}: it is not recognised, and ASE reads no {form} itself; is it damaged? give extxyz")
    if form != "extxyz":
        if get_compression(path.name)[1]:
            raise InputError(f"{path}: compressed files of format {form} are not read; unpack it first")
        if form != "traj" and path.stat().st_size > LARGEST_TEXT:
            raise InputError(
                f"{path}: files of format {form} are read up to {LARGEST_TEXT >> 20} MB; convert it to extxyz"
            )
    return form


def _frames(path: Path, form: str, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Frames of any other format; the first one that cannot be read is the last."""
    if ends_within_number(*_last_lines(path)):
        message = "the last line has no line end and is shorter than the one before; is the file complete?"
        yield wanted.start or 0, InputError(message)
        return
    options = {"store_tags": True} if form == "cif" else {}
    images = iread(str(path.resolve()), index=wanted, format=form, do_not_split_by_at_sign=True, **options)
    for frame in count(wanted.start or 0, wanted.step or 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(images)
                _check_formula(atoms)
        except StopIteration:
            return
        # Each of ASE's hundred parsers fails in its own way on a broken file.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            yield frame, InputError(f"it cannot be read as {form} ({reason}); is the file damaged?")
            return
        yield frame, atoms


def _last_lines(path: Path) -> tuple[bytes, bytes]:
    """Return the last line of a text and the one before."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().splitlines(keepends=True)
    return (lines[-1], lines[-2]) if len(lines) > 1 else (b"", b"")


def _check_formula(atoms: Atoms) -> None:
    """Refuse a CIF frame without whole formula units: it announces no number of atoms, but most give the formula."""
    formula = atoms.info.get("_chemical_formula_sum")
    if formula is not None and len(atoms) % (units := len(Formula("".join(str(formula).split())))):
        raise InputError(f"it holds {len(atoms)} atoms but its formula has {units}")


def counted_from_start(frames: slice | None) -> slice:
    """Return the slice to read; raises InputError for negative numbers, which would need the length of the file."""
    wanted = frames or slice(None)
    if any(value is not None and value < 0 for value in (wanted.start, wanted.stop, wanted.step)):
        raise InputError("frames are counted from the start of the file; give a range without negative numbers")
    return wanted
