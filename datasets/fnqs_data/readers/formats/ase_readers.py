"""Frames of any file but extended XYZ and HDF5, as records."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from ase import Atoms
from ase.io import iread

from fnqs.errors import InputError
from fnqs_data.readers.formats.aims import iterate_aims
from fnqs_data.readers.formats.cif import iterate_cif
from fnqs_data.readers.formats.lammps import iterate_lammps_data, iterate_lammps_dump
from fnqs_data.readers.formats.poscar import iterate_poscar, iterate_xdatcar
from fnqs_data.readers.formats.program_outputs import ENDS, check_frame, check_text, missing_end
from fnqs_data.readers.formats.res import iterate_res
from fnqs_data.readers.formats.text import CUT, ends_within_number, last_lines, reason_of, text_of
from fnqs_data.readers.formats.trajectory import iterate_trajectory
from fnqs_data.readers.frame.conversion import record_from_atoms
from fnqs_data.readers.notes import Notes
from fnqs_data.readers.options import ReadOptions
from fnqs_data.store.manifest import file_digest
from fnqs_data.store.record import Record

Frames = Iterator[tuple[int, Atoms | InputError]]

READERS: dict[str, Callable[[Path, slice], Frames]] = {
    "traj": iterate_trajectory,
    "vasp": iterate_poscar,
    "vasp-xdatcar": iterate_xdatcar,
    "cif": iterate_cif,
    "res": iterate_res,
    "aims": iterate_aims,
    "lammps-data": iterate_lammps_data,
    "lammps-dump-text": iterate_lammps_dump,
}
"""Formats that need more than ASE's reader and a check of what it gives."""


def iterate_other(
    path: Path, form: str, frames: slice, options: ReadOptions, notes: Notes
) -> Iterator[Record | InputError]:
    """Yield the frames of a file that is neither HDF5 nor extxyz, and errors for those that are wrong.

    A file that breaks in the middle ends with an error for the frame that could not be read.

    Args:
        path: the file.
        form: one of `known_formats.READ`.
        frames: which, counted from the start.
        options: names of labels that the user gave.
        notes: takes what is not read.
    """
    found = READERS[form](path, frames) if form in READERS else _frames(path, form, frames)
    yield from records_of(path, found, options, notes)


def records_of(
    path: Path, frames: Iterable[tuple[int, Atoms | InputError]], options: ReadOptions, notes: Notes
) -> Iterator[Record | InputError]:
    """Turn frames (number, ASE frame or what is wrong with it) into records, naming the file in what is wrong."""
    digest = file_digest(path)
    found = False
    for frame, atoms in frames:
        found = True
        try:
            if isinstance(atoms, InputError):
                raise atoms
            record = record_from_atoms(atoms, path.name, frame, digest, options, notes)
        except InputError as error:
            yield InputError(f"{path}: frame {frame}: {error}")
        else:
            yield record
    if not found:
        yield InputError(f"{path}: the file holds no such frames; check the file and the frame range")


def _frames(path: Path, form: str, wanted: slice) -> Frames:
    """Frames of any other format; the first one that cannot be read is the last."""
    first, step = wanted.start or 0, wanted.step or 1
    text = text_of(path)
    try:
        if form not in ENDS and ends_within_number(*last_lines(text)):
            raise InputError(CUT)
        check_text(form, text)
    except InputError as error:
        yield first, error
        return
    file = io.StringIO(text)
    # ASE looks beside an OUTCAR for other files; nothing lies beside this name.
    file.name = "/dev/null/text"  # type: ignore[attr-defined]
    images = iread(file, index=wanted, format=form)
    for frame in count(first, step):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(images)
                check_frame(form, text, atoms)
        except StopIteration:
            if fault := missing_end(form, text):
                yield frame, InputError(fault)
            return
        except InputError as error:
            yield frame, error
            return
        # Each of ASE's hundred parsers fails in its own way.
        except Exception as error:
            yield frame, InputError(_explain(form, error))
            return
        yield frame, atoms


def _explain(form: str, error: Exception) -> str:
    if isinstance(error, KeyError) and str(error).strip("'\"").upper() in ("D", "T"):
        return (
            f"files of format {form} are read with H only; write H for {error.args[0]}, or give extxyz, where isotopes "
            "are read"
        )
    reason = reason_of(error)
    return f"it cannot be read as {form} ({reason}); if it is of another format, name that with --format"


def counted_from_start(frames: slice | None) -> slice:
    """Return the slice to read; raises InputError for negative numbers, which would need the length of the file."""
    wanted = frames or slice(None)
    if any(value is not None and value < 0 for value in (wanted.start, wanted.stop, wanted.step)):
        raise InputError("frames are counted from the start of the file; give a range without negative numbers")
    return wanted
