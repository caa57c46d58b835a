"""Readers, one file per format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fnqs.errors import InputError
from fnqs_data.manifest import MANIFEST
from fnqs_data.readers.ase_readers import iterate_ase
from fnqs_data.readers.qmc_hamm import HDF5_MAGIC, iterate_qmc_hamm
from fnqs_data.record import Record
from fnqs_data.store import open_dataset


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
        with path.open("rb") as file:
            magic = file.read(len(HDF5_MAGIC))
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror})") from error
    if not magic:
        raise InputError(f"{path}: the file is empty")
    if magic == HDF5_MAGIC:
        if frames is None or 0 in range(1)[frames]:
            yield from iterate_qmc_hamm(path)
        return
    yield from iterate_ase(path, frames)
