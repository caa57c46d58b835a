"""From files of any format, or the folder of a data set, to labelled records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fnqs.errors import InputError
from fnqs_data.readers.formats.ase_readers import counted_from_start, records_of
from fnqs_data.readers.formats.extxyz import iterate_extxyz
from fnqs_data.readers.notes import Notes
from fnqs_data.readers.options import ReadOptions
from fnqs_data.readers.recognition.recognise import format_of
from fnqs_data.readers.sandbox.sandbox import iterate_in_sandbox
from fnqs_data.store.manifest import MANIFEST
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset


def read_records(
    path: str | os.PathLike,
    frames: slice | None = None,
    options: ReadOptions | None = None,
    told: list[str] | None = None,
) -> list[Record]:
    """Read labelled configurations from a file or a data set folder.

    Args:
        path: a file of any format in `known_formats.READ`, or the folder of a data set.
        frames: which frames, counted from the start; None for all.
        options: the format and the names of labels, where the file leaves a choice.
        told: takes sentences about what the file says and nobody reads.

    Raises:
        InputError: naming the file, the frame, what is wrong and what to do.
    """
    records = []
    for item in iterate_records(path, frames, options, told):
        if isinstance(item, InputError):
            raise item
        records.append(item)
    return records


def iterate_records(
    path: str | os.PathLike,
    frames: slice | None = None,
    options: ReadOptions | None = None,
    told: list[str] | None = None,
) -> Iterator[Record | InputError]:
    """Yield records one by one, and for a bad frame the InputError that `read_records` would raise.

    Args:
        path: as for `read_records`.
        frames: the same.
        options: the same.
        told: the same; complete when the last record has come.

    Raises:
        InputError: if the file as a whole cannot be read.
    """
    path, options = Path(path), options or ReadOptions()
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
        empty = path.stat().st_size == 0
        form = "" if empty else format_of(path, options.format)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror})") from error
    if empty:
        raise InputError(f"{path}: the file is empty")
    wanted = counted_from_start(frames)
    if form not in ("extxyz", "i-pi"):
        yield from iterate_in_sandbox(path, form, wanted, options, told)
        return
    notes = Notes()
    yield from records_of(path, iterate_extxyz(path, wanted, form), options, notes)
    if told is not None:
        told.extend(notes.sentences(path))
