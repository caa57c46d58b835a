"""Arrays of which every process holds an equal share, as plain .npy files that any number of processes can read.

A nested dict becomes folders; an array that all processes know is `name.npy`, written by process 0, and share i of P
along an axis is `name.axis-A.share-i-of-P.npy`. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnqs.errors import InputError

PIECE_BYTES = 1 << 24


class Share(NamedTuple):
    """One process's part of an array.

    Attributes:
        values: of this process.
        axis: that is cut, in equal parts.
        process: whose part it is.
        processes: number of parts.
    """

    values: np.ndarray
    axis: int
    process: int
    processes: int

    def copy(self) -> Share:
        """Copy the values."""
        return self._replace(values=self.values.copy())


def copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a nested dict with all its arrays, so that the originals may change."""
    return {key: copied(value) if isinstance(value, Mapping) else value.copy() for key, value in tree.items()}


def write_arrays(folder: Path, tree: Mapping[str, Any], first: bool = True) -> list[Path]:
    """Write what this process has to write of a nested dict of arrays and shares.

    Args:
        folder: made if missing.
        tree: of numpy arrays and `Share`s, by names of letters, digits, "_" and "-".
        first: whether this process writes the arrays that all know.

    Returns:
        the files.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            written += write_arrays(folder / key, value, first)
        elif isinstance(value, Share):
            name = f"{key}.axis-{value.axis}.share-{value.process}-of-{value.processes}.npy"
            written.append(_write(folder / name, value.values))
        elif first:
            written.append(_write(folder / f"{key}.npy", value))
    return written


def read_arrays(folder: Path, process: int = 0, processes: int = 1) -> dict[str, Any]:
    """Read a nested dict back, of every shared array the part of one process.

    Args:
        folder: that `write_arrays` wrote, with any number of processes.
        process: whose part to read.
        processes: that share the arrays now.

    Raises:
        InputError: a file is no array of numbers, or a share is missing or cannot be cut for so many processes.
    """
    tree: dict[str, Any] = {}
    shared: dict[tuple[str, int, int], dict[int, Path]] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.is_dir():
            tree[entry.name] = read_arrays(entry, process, processes)
        elif found := re.fullmatch(r"([\w-]+)\.axis-(\d+)\.share-(\d+)-of-(\d+)\.npy", entry.name):
            shared.setdefault((found[1], int(found[2]), int(found[4])), {})[int(found[3])] = entry
        elif found := re.fullmatch(r"([\w-]+)\.npy", entry.name):
            tree[found[1]] = np.array(_open(entry))
        else:
            raise InputError(f"{entry}: not a file of a checkpoint; take it out")
    for (name, axis, count), files in shared.items():
        if sorted(files) != list(range(count)):
            raise InputError(f"{folder}: {count} shares of {name} were written, but only {len(files)} are here")
        parts = [_open(files[i]) for i in range(count)]
        tree[name] = _cut(parts, axis, process, processes, f"{folder}: {name}")
    return tree


def _cut(parts: list[np.ndarray], axis: int, process: int, processes: int, what: str) -> np.ndarray:
    """Copy one process's part out of the shares, without reading the rest."""
    lengths = {part.shape[axis : axis + 1] for part in parts}
    if len(lengths) != 1 or lengths == {()}:
        raise InputError(f"{what}: the shares differ in shape")
    (length,) = lengths.pop()
    whole = length * len(parts)
    if whole % processes:
        raise InputError(f"{what}: {whole} walkers cannot be shared by {processes} processes; use a divisor of it")
    first, last = whole * process // processes, whole * (process + 1) // processes
    pieces = []
    for i, part in enumerate(parts):
        begin, end = max(first - i * length, 0), min(last - i * length, length)
        if begin < end:
            pieces.append(part[(slice(None),) * axis + (slice(begin, end),)])
    return np.concatenate(pieces, axis=axis)


def _write(path: Path, values: np.ndarray) -> Path:
    values = np.asarray(values, order="C")
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
        # np.save would lose the system's reason when the disk is full.
        file.write(values.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    if not _same_bytes(values, _open(path)):
        raise OSError(errno.EIO, "what was written does not read back as it was", str(path))
    return path


def _same_bytes(written: np.ndarray, read: np.ndarray) -> bool:
    """Compare piece by piece: whole populations are large."""
    if (written.shape, written.dtype) != (read.shape, read.dtype):
        return False
    left, right = (values.reshape(-1).view(np.uint8) for values in (written, read))
    pieces = (slice(first, first + PIECE_BYTES) for first in range(0, left.size, PIECE_BYTES))
    return all(np.array_equal(left[piece], right[piece]) for piece in pieces)


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array of numbers ({str(error).splitlines()[0]})") from None
