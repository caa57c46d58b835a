"""Writing a data set: the folder appears complete or not at all.

It is filled under a temporary name beside its target and renamed once. Every file carries a digest in the manifest, so
that a flipped bit or a missing shard is found and named.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fnqs.errors import InputError
from fnqs_data.store.manifest import MANIFEST, SCHEMA_VERSION, UNITS, Manifest, text_digest
from fnqs_data.store.record import Record
from fnqs_data.store.shards import ShardSequence
from fnqs_data.store.store import Dataset

PARTIAL = ".partial-"
"""Part of the name of a folder that is still being filled."""

SHARD_SIZE = 4096
"""Records in one file."""


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
    target = free_target(folder)
    partial = target.parent / f".{target.name}{PARTIAL}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        shards = ShardSequence(partial, shard_size)
        shards.write(records)
        return finish_dataset(target, partial, new_manifest(shards, recipe, note))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def free_target(folder: str | os.PathLike) -> Path:
    """Return the folder as a path, its parent made; raise InputError if something is there."""
    target = Path(folder)
    require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def require_free(target: Path) -> None:
    """Raise InputError if a new data set cannot go there: something is in the way."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} already exists; choose another output folder or remove it first")


def new_manifest(shards: ShardSequence, recipe: str, note: str) -> Manifest:
    """Save the index of a new data set and describe it.

    Raises:
        InputError: there are no records.
    """
    if not shards.written:
        raise InputError("there are no records to write")
    return Manifest(
        schema=SCHEMA_VERSION,
        units=UNITS,
        **shards.finish(),
        recipe=recipe,
        recipe_digest=text_digest(recipe) if recipe else "",
        note=note,
    )


def finish_dataset(target: Path, partial: Path, manifest: Manifest) -> Dataset:
    """Write the manifest into the filled folder, which makes it complete, and rename it to its target."""
    (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    if target.is_dir():
        target.rmdir()
    partial.rename(target)
    return Dataset(target, manifest)
