"""The check of a data set against the digests in its manifest."""

from __future__ import annotations

import hashlib
import os

from array_record.python.array_record_module import ArrayRecordReader

from fnqs_data.store.manifest import INDEX, MANIFEST, file_digest
from fnqs_data.store.store import open_dataset


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
