"""A data set on disk, open for reading: ArrayRecord shards, an index of the columns one selects by, and a manifest."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data.store.manifest import INDEX, MANIFEST, SCHEMA_VERSION, Manifest
from fnqs_data.store.record import Record, decode_configurations, decode_record

OPEN_SHARDS = 512
"""Shards kept open at a time: each takes a file descriptor and 8 bytes a record; opening one takes 0.4 ms."""


class Dataset:
    """An open data set: random access to records, and the columns to select by.

    Attributes:
        folder: where it lives.
        manifest: what it says about itself.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self._readers: OrderedDict[int, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()
        self._columns: dict[str, np.ndarray] = {}
        self._starts = np.cumsum([0] + [shard.records for shard in manifest.shards])

    @cached_property
    def digest(self) -> str:
        """Identify the records and their order (hexadecimal), whatever the shard size or file layout."""
        parts = (self.manifest.schema, self.manifest.records, self.manifest.content)
        return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return self.manifest.records

    def __getitem__(self, i: int) -> Record:
        return self.read([i])[0]

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), 512):
            yield from self.read(range(start, min(start + 512, len(self))))

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Record]:
        """Read the records at the given positions, in that order.

        Raises:
            IndexError: for a position outside the data set.
            InputError: if a shard is missing or damaged.
        """
        return [decode_record(encoded) for encoded in self.read_encoded(indices)]

    def configurations(self, indices: Sequence[int] | np.ndarray) -> Configuration:
        """Stack configurations of one N: (K, 3, 3), (K, N, 3), (K, 3), float64; labels are not decoded.

        Raises:
            IndexError: for a position outside the data set.
            InputError: if a shard is missing or damaged, or the configurations are not of one N.
        """
        return decode_configurations(self.read_encoded(indices))

    def read_encoded(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """Read records as they are stored, each shard once; may be called from several threads.

        Raises:
            IndexError: for a position outside the data set.
            InputError: if a shard is missing or damaged.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < -len(self) or wanted.max() >= len(self)):
            raise IndexError(f"{self.folder} holds {len(self)} records; asked for {wanted.tolist()[:8]}")
        wanted = wanted % max(len(self), 1)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        offsets = wanted - self._starts[shards]
        order = np.argsort(shards, kind="stable")
        cuts = np.flatnonzero(np.diff(shards[order])) + 1
        result = [b""] * len(wanted)
        for places in np.split(order, cuts) if len(order) else []:
            data = self._read_shard(int(shards[places[0]]), offsets[places].tolist())
            for place, encoded in zip(places.tolist(), data, strict=True):
                result[place] = encoded
        return result

    @property
    def n_atoms(self) -> np.ndarray:
        """(M,) number of protons of every record."""
        return self._column("number")

    @property
    def wigner_seitz_radii(self) -> np.ndarray:
        """(M,) r_s of every record, bohr."""
        return self._column("density_parameter")

    @property
    def twisted(self) -> np.ndarray:
        """(M,) whether each record has a twist other than Gamma."""
        return self._column("twisted")

    @property
    def energies_per_atom(self) -> np.ndarray:
        """(M,) labelled energies, Ha per atom; NaN where there is none."""
        return self._column("energy_per_atom")

    @cached_property
    def phases(self) -> list[str]:
        """Phase of every record."""
        return self._strings("phase")

    @cached_property
    def splits(self) -> list[str]:
        """Split of every record."""
        return self._strings("split")

    @cached_property
    def trajectories(self) -> list[str]:
        """Trajectory of every record; empty where a record stands alone."""
        return self._strings("trajectory") if self._has_column("trajectory") else [""] * len(self)

    @cached_property
    def identifiers(self) -> list[str]:
        """Identifier of every record."""
        return [name.decode() for name in self._column("identifier").tolist()]

    def where(self, *, split: str | None = None, phase: str | None = None, n_atoms: int | None = None) -> np.ndarray:
        """Positions (int64) of the records of a split, phase and N; None selects all."""
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self._labelled("split", split)
        if phase is not None:
            chosen &= self._labelled("phase", phase)
        if n_atoms is not None:
            chosen &= self.n_atoms == n_atoms
        return np.flatnonzero(chosen).astype(np.int64)

    def _strings(self, column: str) -> list[str]:
        names = self._names(column)
        return [names[code] for code in self._column(column).tolist()]

    def _names(self, column: str) -> list[str]:
        return [name.decode() for name in self._column(f"{column}_names").tolist()]

    def _labelled(self, column: str, value: str) -> np.ndarray:
        """(M,) whether each record has this phase or split; compares codes, not strings."""
        names = self._names(column)
        code = names.index(value) if value in names else -1
        return self._column(column) == code

    def _has_column(self, name: str) -> bool:
        with self._index() as columns:
            return name in columns.files

    def _column(self, name: str) -> np.ndarray:
        """Read a column of the index when it is first asked for; long sets need not hold all of them."""
        if name not in self._columns:
            with self._index() as columns:
                self._columns[name] = columns[name]
        return self._columns[name]

    @contextmanager
    def _index(self) -> Iterator[np.lib.npyio.NpzFile]:
        path = self.folder / INDEX
        try:
            with np.load(path, allow_pickle=False) as columns:
                yield columns
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: the index cannot be read ({error}); build the data set again") from error

    def _read_shard(self, shard: int, places: list[int]) -> list[bytes]:
        try:
            with self._lock:
                if shard not in self._readers:
                    path = str(self._path_of(shard))
                    self._readers[shard] = ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")
                    if len(self._readers) > OPEN_SHARDS:
                        self._readers.popitem(last=False)[1].close()
                self._readers.move_to_end(shard)
                return self._readers[shard].read(places)
        except (RuntimeError, IndexError, ValueError) as error:
            raise InputError(
                f"{self._path_of(shard)}: the shard is missing or damaged ({error}); run fnqs-data verify, then build "
                f"it again"
            ) from error

    def _path_of(self, shard: int) -> Path:
        return self.folder / self.manifest.shards[shard].name


def open_dataset(folder: str | os.PathLike) -> Dataset:
    """Open a data set folder; shards are read when asked for.

    Raises:
        InputError: if the manifest is missing, damaged or of another schema.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a data set folder: it holds no {MANIFEST}") from error
    except (msgspec.DecodeError, OSError) as error:
        raise InputError(f"{path}: the manifest cannot be read ({error}); build the data set again") from error
    if manifest.schema != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema {manifest.schema}, this program reads {SCHEMA_VERSION}; build the data set again"
        )
    if sum(shard.records for shard in manifest.shards) != manifest.records:
        raise InputError(f"{path}: the record counts disagree; build the data set again")
    return Dataset(Path(folder), manifest)
