"""A new version of a data set: the old shards as they are, new ones after them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_data.store.shards import ShardSequence
from fnqs_data.store.store import Dataset
from fnqs_data.store.verify import verify_dataset
from fnqs_data.store.write import PARTIAL, SHARD_SIZE, finish_dataset, free_target


def append_dataset(
    base: Dataset, records: Iterable[Record], folder: str | os.PathLike, *, note: str = "", shard_size: int = SHARD_SIZE
) -> Dataset:
    """Write a new folder with the records of `base` and more; nothing of `base` is rewritten.

    Old shards are hard links where the file system has them and copies elsewhere, with the names and digests
    they had. The digest of the new version is that of a set written with all records at once.

    Args:
        base: the version before; checked against its digests first.
        records: streamed; they come after those of `base`.
        folder: must not exist yet (an empty folder is replaced).
        note: source and licence of the new records, added to the note of `base`.
        shard_size: records in one new file.

    Raises:
        InputError: if `base` is damaged, the folder is taken, there are no new records, or two share an
            identifier.
        OSError: if the disk is full or not writable; nothing half-written stays.
    """
    target = free_target(folder)
    if findings := verify_dataset(base.folder):
        raise InputError(f"{base.folder} is damaged, so nothing is appended to it: {findings[0]}")
    partial = target.parent / f".{target.name}{PARTIAL}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        shards, first = ShardSequence(partial, shard_size), 0
        for shard in base.manifest.shards:
            _link(base.folder / shard.name, partial / shard.name)
            shards.keep(base.read_encoded(range(first, first + shard.records)))
            first += shard.records
        shards.write(records)
        if shards.records == len(base):
            raise InputError("there are no records to append")
        manifest = msgspec.structs.replace(
            base.manifest,
            **shards.finish(),
            note="\n".join(text for text in (base.manifest.note, note) if text),
            version=base.manifest.version + 1,
            parent=base.digest,
        )
        return finish_dataset(target, partial, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where links are not possible (another file system)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
