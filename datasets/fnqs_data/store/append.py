"""A new version of a data set: the old shards as they are, new ones after them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fnqs.errors import InputError
from fnqs_data.store.manifest import INDEX, MANIFEST, Shard, file_digest
from fnqs_data.store.record import Record, decode_record, encode_record
from fnqs_data.store.shards import IndexColumns, ShardWriter
from fnqs_data.store.store import PARTIAL, Dataset, verify_dataset


def append_dataset(
    base: Dataset, records: Iterable[Record], folder: str | os.PathLike, *, note: str = "", shard_size: int = 4096
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
    target = Path(folder)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} already exists; choose another output folder or remove it first")
    if findings := verify_dataset(base.folder):
        raise InputError(f"{base.folder} is damaged, so nothing is appended to it: {findings[0]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}{PARTIAL}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        columns, content = IndexColumns(), hashlib.blake2b(digest_size=16)
        for start in range(0, len(base), shard_size):
            for encoded in base.read_encoded(range(start, min(start + shard_size, len(base)))):
                content.update(encoded)
                columns.add(decode_record(encoded))
        for shard in base.manifest.shards:
            _link(base.folder / shard.name, partial / shard.name)
        added = _write_shards(partial, records, len(base.manifest.shards), shard_size, columns, content)
        if not added:
            raise InputError("there are no records to append")
        columns.save(partial / INDEX)
        manifest = msgspec.structs.replace(
            base.manifest,
            records=len(columns.n_atoms),
            counts=columns.counts(),
            density_parameter=(min(columns.radii), max(columns.radii)),
            content=content.hexdigest(),
            shards=[*base.manifest.shards, *added],
            index_blake2b=file_digest(partial / INDEX),
            note="\n".join(text for text in (base.manifest.note, note) if text),
            version=base.manifest.version + 1,
            parent=base.digest,
        )
        (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Dataset(target, manifest)


def _write_shards(
    partial: Path, records: Iterable[Record], first: int, shard_size: int, columns: IndexColumns, content
) -> list[Shard]:
    """Write the new shards, numbered from `first` on, taking note of every record."""
    written: list[Shard] = []
    writer, waiting = None, 0

    def finish() -> None:
        assert writer is not None
        writer.close()
        name = f"shard-{first + len(written):05d}.array_record"
        written.append(Shard(name=name, records=waiting, blake2b=file_digest(partial / name)))

    for record in records:
        if writer is None:
            writer = ShardWriter(partial / f"shard-{first + len(written):05d}.array_record")
        encoded = encode_record(record)
        writer.write(encoded)
        content.update(encoded)
        columns.add(record)
        waiting += 1
        if waiting == shard_size:
            finish()
            writer, waiting = None, 0
    if writer is not None:
        finish()
    return written


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where links are not possible (another file system)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
