"""The older QMC-HAMM HDF5 layout: one configuration a file, as an extended XYZ text in `xyz_data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py

from fnqs.errors import InputError
from fnqs_data.manifest import file_digest
from fnqs_data.readers.ase_readers import record_from_atoms
from fnqs_data.readers.extxyz import parse_extxyz
from fnqs_data.record import Record

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def iterate_qmc_hamm(path: Path) -> Iterator[Record | InputError]:
    """Yield the one record of a file (eV, Å, GPa, K inside), or the error that says what is wrong.

    The text's `method` names the molecular dynamics that made the configuration, not the energy's method.
    """
    try:
        with h5py.File(path, "r") as file:
            if "xyz_data" not in file:
                raise InputError(f"{path}: this HDF5 file has no xyz_data; only that QMC-HAMM layout is read")
            dataset = file["xyz_data"]
            text = dataset[()] if isinstance(dataset, h5py.Dataset) else None
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: the HDF5 file cannot be read ({error}); is it complete?") from error
    if not isinstance(text, bytes):
        raise InputError(f"{path}: xyz_data is not a text; is this a QMC-HAMM file?")
    try:
        atoms = parse_extxyz(text.decode())
        if isinstance(atoms, InputError):
            raise atoms
        record = record_from_atoms(atoms, path.name, 0, file_digest(path))
    except (InputError, UnicodeDecodeError) as error:
        yield InputError(f"{path}: frame 0: {error}")
        return
    yield replace(record, method="QMC (QMC-HAMM)")
