"""Readers, one file per format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fnqs.errors import InputError
from fnqs_data.readers.ase_readers import counted_from_start, format_of, records_of
from fnqs_data.readers.extxyz import iterate_extxyz
from fnqs_data.readers.guarded import iterate_guarded
from fnqs_data.readers.qmc_hamm import is_hdf5
from fnqs_data.store.manifest import MANIFEST
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset


def read_records(path: str | os.PathLike, frames: slice | None = None) -> list[Record]:
    """Read labelled configurations from a file or a data set folder.

    Args:
        path: anything ASE reads with a cell (extxyz, POSCAR, .traj, ...; eV and Å), a QMC-HAMM HDF5 file of
            either layout, or the folder of a data set.
        frames: which frames, counted from the start; None for all.

    Raises:
        InputError: naming the file, the frame, what is wrong and what to do.
    """
    records = []
    for item in iterate_records(path, frames):
        if isinstance(item, InputError):
            raise item
        records.append(item)
    return records


def iterate_records(path: str | os.PathLike, frames: slice | None = None) -> Iterator[Record | InputError]:
    """Yield records one by one, and for a bad frame the InputError that `read_records` would raise.

    Raises:
        InputError: if the file as a whole cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise InputError(f"{path} is a folder without {MANIFEST}; give a file or a data set folder")
        dataset = open_dataset(path)
        chosen = range(len(dataset))[frames] if frames else range(len(dataset))
        for start in range(0, len(chosen), 1024):
            yield from dataset.read(list(chosen[start : start + 1024]))
        return
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if not path.is_file():
        raise InputError(f"{path} is a pipe or a device; give a regular file, since files are read more than once")
    try:
        empty, hdf5 = path.stat().st_size == 0, is_hdf5(path)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror})") from error
    if empty:
        raise InputError(f"{path}: the file is empty")
    if hdf5 or format_of(path) != "extxyz":
        yield from iterate_guarded(path, counted_from_start(frames))
    else:
        yield from records_of(path, iterate_extxyz(path, counted_from_start(frames)))
