"""The files of a data set while it is written: ArrayRecord shards and the index columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from fnqs.errors import InputError
from fnqs_data.store.record import Record


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
