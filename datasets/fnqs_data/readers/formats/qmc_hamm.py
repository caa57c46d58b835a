"""The two QMC-HAMM HDF5 layouts, one configuration a file: an extended XYZ text, or arrays by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py

from fnqs.errors import InputError
from fnqs_data.readers.formats.extxyz import LARGEST_FRAME, single_frame
from fnqs_data.readers.formats.hdf5_nodes import dataset_at
from fnqs_data.readers.formats.qmc_hamm_arrays import record_from_arrays
from fnqs_data.readers.formats.text import reason_of
from fnqs_data.readers.frame.conversion import QMC_HAMM_METHOD, record_from_atoms
from fnqs_data.readers.notes import Notes
from fnqs_data.readers.options import ReadOptions
from fnqs_data.store.manifest import file_digest
from fnqs_data.store.record import Record


def iterate_qmc_hamm(path: Path, options: ReadOptions, notes: Notes) -> Iterator[Record | InputError]:
    """Yield the one record of a file (eV, Å, GPa, K inside), or the error that says what is wrong.

    Args:
        path: an HDF5 file.
        options: names of labels that the user gave, for the layout that is an extended XYZ text.
        notes: takes what is not read.

    Raises:
        InputError: if the file as a whole cannot be read, or has neither layout.
    """
    try:
        with h5py.File(path, "r") as file:
            if "xyz_data" in file:
                record = _record_from_text(_text(file), path, options, notes)
            elif "structure" in file:
                record = record_from_arrays(file, path.name, file_digest(path), notes)
            else:
                raise InputError("it has neither xyz_data nor structure; only the QMC-HAMM layouts are read")
    except InputError as error:
        yield InputError(f"{path}: frame 0: {error}")
    # h5py hands on whatever its C library meets in a damaged file.
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: frame 0: the HDF5 file cannot be read ({reason}); is it complete?") from error
    else:
        yield record


def _text(file: h5py.File) -> bytes:
    """Return the text of the older layout; raises InputError if it is none or too long."""
    node = dataset_at(file, "xyz_data")
    if node is None or node.shape != () or h5py.check_string_dtype(node.dtype) is None:
        raise InputError("xyz_data is not a text; is this a QMC-HAMM file?")
    text = node[()]
    text = text.encode() if isinstance(text, str) else bytes(text)
    if len(text) > LARGEST_FRAME:
        raise InputError("xyz_data is too long for a configuration; is the file damaged?")
    return text


def _record_from_text(text: bytes, path: Path, options: ReadOptions, notes: Notes) -> Record:
    """Read the older layout; the text's `method` names the dynamics of the configuration, not the energy's method."""
    atoms = single_frame(text)
    if isinstance(atoms, InputError):
        raise atoms
    record = record_from_atoms(atoms, path.name, 0, file_digest(path), options, notes)
    return replace(record, method=QMC_HAMM_METHOD)
