"""A data set on disk: ArrayRecord shards, an index of the columns one selects by, and a manifest.

A folder appears complete or not at all: it is filled under a temporary name beside its target and renamed
once. Every file carries a digest in the manifest, so a flipped bit or a missing shard is found and named.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data.store.manifest import INDEX, MANIFEST, SCHEMA_VERSION, UNITS, Manifest, Shard, file_digest
from fnqs_data.store.record import Record, decode_configurations, decode_record, encode_record
from fnqs_data.store.shards import IndexColumns, ShardWriter, shard_name

PARTIAL = ".partial-"
"""Part of the name of a folder that is still being filled."""

RESUMED = "resumed-"
"""What follows it where a later run may go on."""

UNFINISHED = ".unfinished"
"""End of the name of a shard that is still being written."""

SHARD_SIZE = 4096
"""Records in one file."""
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
        path = self.folder / self.manifest.shards[shard].name
        try:
            with self._lock:
                if shard not in self._readers:
                    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
                    self._readers[shard] = reader
                    if len(self._readers) > OPEN_SHARDS:
                        self._readers.popitem(last=False)[1].close()
                self._readers.move_to_end(shard)
                return self._readers[shard].read(places)
        except (RuntimeError, IndexError, ValueError) as error:
            raise InputError(
                f"{path}: the shard is missing or damaged ({error}); run fnqs-data verify, then build it again"
            ) from error


def write_dataset(
    folder: str | os.PathLike,
    records: Iterable[Record],
    *,
    recipe: str = "",
    note: str = "",
    shard_size: int = SHARD_SIZE,
) -> Dataset:
    """Write records, in their order, as a new data set folder.

    Args:
        folder: must not exist yet (an empty folder is replaced).
        records: streamed; only the index columns are kept in memory.
        recipe: text of the recipe that made them.
        note: source and licence.
        shard_size: records in one file.

    Raises:
        InputError: if the folder is taken, there are no records, or two share an identifier.
        OSError: if the disk is full or not writable; nothing half-written stays.
    """
    target = _free(folder)
    partial = target.parent / f".{target.name}{PARTIAL}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        return _complete(target, partial, lambda _: records, recipe, note, shard_size)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def resume_dataset(
    folder: str | os.PathLike,
    records_from: Callable[[int], Iterable[Record]],
    *,
    key: str,
    recipe: str = "",
    note: str = "",
    shard_size: int = SHARD_SIZE,
) -> Dataset:
    """Write a data set folder like `write_dataset`, going on from the finished shards of a run that was killed.

    Args:
        folder: must not exist yet (an empty folder is replaced).
        records_from: the records from a position on; they depend on nothing but `key` and the position.
        key: names what is written, so that nothing else is ever resumed; safe in a file name.
        recipe: text of the recipe that made them.
        note: source and licence.
        shard_size: records in one file.

    Raises:
        InputError: as `write_dataset`, or if another process is writing this folder.
        OSError: as `write_dataset`. After these errors nothing stays; after a kill or ctrl-C finished shards do.
    """
    target = _free(folder)
    with _only_writer(target):
        partial = resumed_folder(target, key)
        for stale in target.parent.glob(f".{target.name}{PARTIAL}{RESUMED}*"):
            if stale != partial:
                shutil.rmtree(stale, ignore_errors=True)
        try:
            return _complete(target, partial, records_from, recipe, note, shard_size)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def resumed_folder(target: Path, key: str) -> Path:
    """Where `resume_dataset` keeps what it has written so far."""
    return target.parent / f".{target.name}{PARTIAL}{RESUMED}{key}"


def _free(folder: str | os.PathLike) -> Path:
    """Return the folder as a path, its parent made; raise InputError if something is there."""
    target = Path(folder)
    require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextmanager
def _only_writer(target: Path) -> Iterator[None]:
    """Hold a lock beside the target; the lock of a killed process is free, and its file is used again."""
    path = target.parent / f".{target.name}.writing"
    while True:
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{target} is being written by another process; wait for it or choose another output folder"
                ) from None
            # A writer that has just finished removes its lock file: then this lock is on nothing.
            if not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _complete(
    target: Path,
    partial: Path,
    records_from: Callable[[int], Iterable[Record]],
    recipe: str,
    note: str,
    shard_size: int,
) -> Dataset:
    """Fill the partial folder, write its manifest last, and give it its name."""
    partial.mkdir(exist_ok=True)
    manifest = _fill(partial, records_from, recipe, note, shard_size)
    (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    if target.is_dir():
        target.rmdir()
    partial.rename(target)
    return Dataset(target, manifest)


def require_free(target: Path) -> None:
    """Raise InputError if a new data set cannot go there: something is in the way."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} already exists; choose another output folder or remove it first")


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


def verify_dataset(folder: str | os.PathLike) -> list[str]:
    """Check every file against the manifest; one finding a line, each naming its file, empty if valid.

    Raises:
        InputError: if the manifest itself is missing or damaged.
    """
    dataset = open_dataset(folder)
    findings = []
    content = hashlib.blake2b(digest_size=16)
    for shard in dataset.manifest.shards:
        path = dataset.folder / shard.name
        if not path.is_file():
            findings.append(f"{shard.name}: missing")
            continue
        if file_digest(path) != shard.blake2b:
            findings.append(f"{shard.name}: its bytes differ from those written (flipped, truncated or replaced)")
            continue
        reader = ArrayRecordReader(str(path))
        if reader.num_records() != shard.records:
            findings.append(f"{shard.name}: {reader.num_records()} records, the manifest says {shard.records}")
        for start in range(0, reader.num_records(), 4096):
            for data in reader.read(start, min(start + 4096, reader.num_records())):
                content.update(data)
    index = dataset.folder / INDEX
    if not index.is_file():
        findings.append(f"{INDEX}: missing")
    elif file_digest(index) != dataset.manifest.index_blake2b:
        findings.append(f"{INDEX}: its bytes differ from those written (flipped, truncated or replaced)")
    if not findings and content.hexdigest() != dataset.manifest.content:
        findings.append(f"{MANIFEST}: its content digest is not that of the records")
    return findings


def _fill(
    partial: Path, records_from: Callable[[int], Iterable[Record]], recipe: str, note: str, shard_size: int
) -> Manifest:
    """Write shards and index into a temporary folder, after those already there, and return the manifest."""
    columns = IndexColumns()
    content = hashlib.blake2b(digest_size=16)
    names: list[tuple[str, int]] = []
    for finished in _finished_shards(partial, shard_size):
        for encoded in finished:
            content.update(encoded)
            columns.add(decode_record(encoded))
        names.append((shard_name(len(names)), len(finished)))
    writer, waiting = None, 0
    for record in records_from(len(columns.n_atoms)):
        name = shard_name(len(names))
        if writer is None:
            writer = ShardWriter(partial / f"{name}{UNFINISHED}")
        encoded = encode_record(record)
        writer.write(encoded)
        content.update(encoded)
        columns.add(record)
        waiting += 1
        if waiting == shard_size:
            writer.close()
            (partial / f"{name}{UNFINISHED}").rename(partial / name)
            names.append((name, waiting))
            writer, waiting = None, 0
    if writer is not None:
        name = shard_name(len(names))
        writer.close()
        (partial / f"{name}{UNFINISHED}").rename(partial / name)
        names.append((name, waiting))
    if not names:
        raise InputError("there are no records to write")
    columns.save(partial / INDEX)
    return Manifest(
        schema=SCHEMA_VERSION,
        units=UNITS,
        records=len(columns.n_atoms),
        counts=columns.counts(),
        density_parameter=(min(columns.radii), max(columns.radii)),
        content=content.hexdigest(),
        shards=[Shard(name=n, records=c, blake2b=file_digest(partial / n)) for n, c in names],
        index_blake2b=file_digest(partial / INDEX),
        recipe=recipe,
        recipe_digest=hashlib.blake2b(recipe.encode(), digest_size=16).hexdigest() if recipe else "",
        note=note,
    )


def _finished_shards(partial: Path, shard_size: int) -> Iterator[list[bytes]]:
    """Yield the encoded records of every full shard that a killed run left, and remove all other files."""
    kept = set()
    for name in (shard_name(i) for i in count()):
        try:
            reader = ArrayRecordReader(str(partial / name))
            records = reader.read(0, reader.num_records()) if reader.num_records() == shard_size else []
        except (RuntimeError, IndexError, ValueError):
            records = []
        if not records:
            break
        kept.add(name)
        yield records
    for leftover in partial.iterdir():
        if leftover.name not in kept:
            leftover.unlink()
