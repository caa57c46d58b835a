"""Writing a data set that takes long: a run that was killed is continued from its finished shards."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_data.store.shards import ShardSequence, shard_name
from fnqs_data.store.store import Dataset
from fnqs_data.store.write import PARTIAL, SHARD_SIZE, finish_dataset, free_target, new_manifest

RESUMED = "resumed-"
"""What follows `PARTIAL` in the name of a folder that a later run may continue."""


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
    target = free_target(folder)
    with _only_writer(target):
        partial = resumed_folder(target, key)
        for stale in target.parent.glob(f".{target.name}{PARTIAL}{RESUMED}*"):
            if stale != partial:
                shutil.rmtree(stale, ignore_errors=True)
        try:
            partial.mkdir(exist_ok=True)
            shards = ShardSequence(partial, shard_size)
            for records in _finished_shards(partial, shard_size):
                shards.keep(records)
            shards.write(records_from(shards.records))
            return finish_dataset(target, partial, new_manifest(shards, recipe, note))
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def resumed_folder(target: Path, key: str) -> Path:
    """Where `resume_dataset` keeps what it has written so far."""
    return target.parent / f".{target.name}{PARTIAL}{RESUMED}{key}"


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
