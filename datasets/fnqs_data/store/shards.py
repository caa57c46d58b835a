"""The files of a data set while it is written: numbered ArrayRecord shards and the index columns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from fnqs.errors import InputError
from fnqs_data.store.manifest import INDEX, Shard, file_digest
from fnqs_data.store.record import Record, decode_record, encode_record

UNFINISHED = ".unfinished"
"""End of the name of a shard that is still being written."""


def shard_name(place: int) -> str:
    """File name of a shard."""
    return f"shard-{place:05d}.array_record"


class ShardWriter:
    """An ArrayRecord file whose failures are OSErrors, like those of any other file."""

    def __init__(self, path: Path):
        self._path = path
        self._writer = self._guard(ArrayRecordWriter, str(path), "group_size:1")

    def write(self, data: bytes) -> None:
        """Append one record."""
        self._guard(self._writer.write, data)

    def close(self) -> None:
        """Finish the file."""
        self._guard(self._writer.close)

    def _guard(self, call, *arguments):
        try:
            return call(*arguments)
        except RuntimeError as error:
            raise OSError(f"cannot write {self._path.name}: {error}") from error


class IndexColumns:
    """Index columns, collected while records stream by."""

    def __init__(self):
        self.n_atoms: list[int] = []
        self.radii: list[float] = []
        self.energies: list[float] = []
        self.twisted: list[bool] = []
        self.labels: dict[str, list[int]] = {"phase": [], "split": [], "trajectory": []}
        self.names: dict[str, dict[str, int]] = {column: {} for column in self.labels}
        self.identifiers: dict[bytes, None] = {}

    def add(self, record: Record) -> None:
        """Take note of a record; raises InputError for an identifier that was there before."""
        key = record.identifier.encode()
        if key in self.identifiers:
            raise InputError(f"two records are called {record.identifier}; identifiers must be unique")
        self.identifiers[key] = None
        self.n_atoms.append(record.n_atoms)
        self.radii.append(record.wigner_seitz_radius)
        self.twisted.append(bool(np.any(np.asarray(record.configuration.twist))))
        energy = record.energy_per_atom
        self.energies.append(np.nan if energy is None else energy)
        for column, names in self.names.items():
            self.labels[column].append(names.setdefault(getattr(record, column), len(names)))

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Count records by phase, split and N."""
        phases, splits = list(self.names["phase"]), list(self.names["split"])
        tally = Counter(zip(self.labels["phase"], self.labels["split"], self.n_atoms, strict=True))
        result: dict[str, dict[str, dict[str, int]]] = {}
        for (phase, split, n_atoms), count in sorted(tally.items()):
            result.setdefault(phases[phase], {}).setdefault(splits[split], {})[str(n_atoms)] = count
        return result

    def save(self, path: Path) -> None:
        """Write the columns as an npz file without pickled objects."""
        columns = {
            "number": np.array(self.n_atoms, dtype=np.int32),
            "density_parameter": np.array(self.radii, dtype=np.float64),
            "energy_per_atom": np.array(self.energies, dtype=np.float64),
            "twisted": np.array(self.twisted, dtype=bool),
            "identifier": np.array(list(self.identifiers), dtype=np.bytes_),
        }
        for column, codes in self.labels.items():
            columns[column] = np.array(codes, dtype=np.int32)
            columns[f"{column}_names"] = np.array([n.encode() for n in self.names[column]], dtype=np.bytes_)
        np.savez(path, allow_pickle=False, **columns)


class ShardSequence:
    """The numbered shards of a data set that is being written, and what its index and manifest say of their records.

    Args:
        folder: where they are.
        shard_size: records in one new file.

    Attributes:
        written: the finished shards, in their order.
    """

    def __init__(self, folder: Path, shard_size: int):
        self._folder, self._shard_size = folder, shard_size
        self._columns, self._content = IndexColumns(), hashlib.blake2b(digest_size=16)
        self.written: list[Shard] = []

    @property
    def records(self) -> int:
        """How many there are so far."""
        return len(self._columns.n_atoms)

    def keep(self, encoded: Sequence[bytes]) -> None:
        """Take note of the records of the next shard, which is in the folder already."""
        for data in encoded:
            self._note(data, decode_record(data))
        self._finish_shard(len(encoded))

    def write(self, records: Iterable[Record]) -> None:
        """Write records, in their order, into further shards.

        Raises:
            InputError: two records share an identifier.
            OSError: the disk is full or not writable.
        """
        writer, waiting = None, 0
        for record in records:
            if writer is None:
                writer = ShardWriter(self._unfinished)
            data = encode_record(record)
            writer.write(data)
            self._note(data, record)
            waiting += 1
            if waiting == self._shard_size:
                self._close(writer, waiting)
                writer, waiting = None, 0
        if writer is not None:
            self._close(writer, waiting)

    def finish(self) -> dict[str, Any]:
        """Save the index; returns the entries of the manifest that depend on the records."""
        self._columns.save(self._folder / INDEX)
        return {
            "records": self.records,
            "counts": self._columns.counts(),
            "density_parameter": (min(self._columns.radii), max(self._columns.radii)),
            "content": self._content.hexdigest(),
            "shards": self.written,
            "index_blake2b": file_digest(self._folder / INDEX),
        }

    @property
    def _unfinished(self) -> Path:
        return self._folder / f"{shard_name(len(self.written))}{UNFINISHED}"

    def _note(self, data: bytes, record: Record) -> None:
        self._content.update(data)
        self._columns.add(record)

    def _close(self, writer: ShardWriter, records: int) -> None:
        writer.close()
        self._unfinished.rename(self._folder / shard_name(len(self.written)))
        self._finish_shard(records)

    def _finish_shard(self, records: int) -> None:
        name = shard_name(len(self.written))
        self.written.append(Shard(name=name, records=records, blake2b=file_digest(self._folder / name)))
