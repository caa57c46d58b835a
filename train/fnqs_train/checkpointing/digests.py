"""Digests of all files of a folder, kept in a file beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

DIGEST_NAME = "blake2b.json"


def digests_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Blake2b digests (hex) of files, by their names below a folder."""
    result = {}
    for file in sorted(files):
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        result[file.relative_to(folder).as_posix()] = digest.hexdigest()
    return result


def find_changes(folder: Path, spared: tuple[str, ...] = ()) -> list[str]:
    """Compare every file of a folder with its digest; one clause for each difference.

    Args:
        folder: with a file DIGEST_NAME.
        spared: folders in it that may be missing as a whole.
    """
    try:
        expected: dict[str, str] = json.loads((folder / DIGEST_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{DIGEST_NAME} is missing, so it was not saved to the end"]
    except ValueError:
        return [f"{DIGEST_NAME} is not readable"]
    if not isinstance(expected, dict):
        return [f"{DIGEST_NAME} is not readable"]
    absent = {item for item in spared if not (folder / item).exists()}
    expected = {name: digest for name, digest in expected.items() if name.split("/")[0] not in absent}
    files = (file for file in folder.rglob("*") if file.is_file() and file != folder / DIGEST_NAME)
    found = digests_of(folder, files)
    return (
        [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        + [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        + [f"{name} has changed" for name in sorted(expected) if found.get(name, expected[name]) != expected[name]]
    )
