"""Checkpoints that someone reads stay until it is done, though the training that wrote them deletes old ones.

Who opens a step takes a shared lock of the system on its file of digests, and the training deletes no step on which
it cannot get the lock for itself alone. The system releases locks of processes that end in whatever way. Where a file
system has no locks, steps are read as fast as possible, and one that vanishes meanwhile is noticed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fnqs_train.checkpointing.digests import DIGEST_NAME

_held: dict[tuple[int, int], int] = {}
"""Open files of this process, by device and inode of the digests they lock; until its end."""


def hold(step: Path) -> bool:
    """Keep the folder of a step from being deleted for the rest of this process.

    Args:
        step: the folder.

    Returns:
        False if it is not there, or about to go.
    """
    try:
        file = os.open(step / DIGEST_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        # A step without digests is damaged, which whoever reads it will find.
        return step.is_dir()
    found = os.fstat(file)
    key = (found.st_dev, found.st_ino)
    if key in _held:
        os.close(file)
        return still_there(step, key)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # it is just being deleted
        os.close(file)
        return False
    except OSError:  # no locks on this file system
        os.close(file)
        return still_there(step, key)
    _held[key] = file
    if still_there(step, key):
        return True
    os.close(_held.pop(key))
    return False


def still_there(step: Path, key: tuple[int, int]) -> bool:
    """Whether the digests of a step are at their place and the file that was opened."""
    try:
        found = os.stat(step / DIGEST_NAME)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == key


@contextmanager
def unused(step: Path) -> Iterator[bool]:
    """Tell whether nobody holds a step, this process included; if so, nobody can while the block lasts."""
    try:
        file = os.open(step / DIGEST_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    except OSError:  # no locks on this file system, so nobody has one
        free = True
    try:
        yield free
    finally:
        os.close(file)
