"""Names of records from several files: as much of each path as tells the files apart."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

from fnqs.errors import InputError


def distinct_names(files: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """Return for each file the shortest end of its path that no other file shares.

    Args:
        files: as the user gave them.
        taken: names that are in use already and must not come again.

    Raises:
        InputError: if a file is given twice.
    """
    paths = [PurePath(os.path.abspath(file)) for file in files]
    for file, path in zip(files, paths, strict=True):
        if paths.count(path) > 1:
            raise InputError(f"{file} is given twice; give every file once")
    return [_shortest(path, [other for other in paths if other != path], taken) for path in paths]


def _shortest(path: PurePath, others: Sequence[PurePath], taken: Collection[str]) -> str:
    same = [other for other in others if other.name == path.name]
    for length in range(1, len(path.parts)):
        end = path.parts[-length:]
        name = "/".join(end)
        if name not in taken and all(other.parts[-length:] != end for other in same):
            return name
    return path.as_posix()
