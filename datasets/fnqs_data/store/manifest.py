"""The manifest of a data set folder: what it holds, in which units, and the digest of every file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.npz"


class Shard(msgspec.Struct, frozen=True):
    """One ArrayRecord file of a data set."""

    name: str
    records: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a data set holds; stored as readable JSON.

    `content` is the digest of all encoded records in their order; `counts` is keyed by phase, then split,
    then N; `density_parameter` is the smallest and largest r_s in bohr. `version` counts how often records were
    appended, from 1, and `parent` is the digest of the version before.
    """

    schema: int
    units: dict[str, str]
    records: int
    counts: dict[str, dict[str, dict[str, int]]]
    density_parameter: tuple[float, float]
    content: str
    shards: list[Shard]
    index_blake2b: str
    recipe: str = ""
    recipe_digest: str = ""
    note: str = ""
    version: int = 1
    parent: str = ""


UNITS = {
    "length": "bohr",
    "energy": "Ha, whole cell",
    "forces": "Ha/bohr",
    "stress": "Ha/bohr^3, positive under tension",
    "temperature": "K",
    "pressure": "GPa",
    "twist": "fractions of the reciprocal lattice vectors",
}


def file_digest(path: Path) -> str:
    """Return the blake2b of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def text_digest(text: str) -> str:
    """Return the blake2b of a recipe's text, hexadecimal."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
