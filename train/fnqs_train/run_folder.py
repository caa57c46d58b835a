"""The folder of a run: one command writes it at a time, and what may be done with one that is there already."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fnqs.errors import InputError
from fnqs_train.checkpointing.steps import FOLDER_NAME
from fnqs_train.config import CONFIG_NAME, RunConfig, changed_keys
from fnqs_train.monitoring.metrics import METRICS_NAME

LOCK_NAME = "in-use"
"""File in the folder that says who writes it. What counts is the system's lock on it, which ends with the process."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer."""

LONGEST_HOLDER = 300
"""Bytes of a lock file that are shown."""


@contextmanager
def used_alone(folder: Path, name: str) -> Iterator[None]:
    """Keep every other command out of a folder while this block lasts; of several processes the first one does this.

    The lock is one of the system's (flock): it ends with the process that holds it, however that ends, and a file
    left behind means nothing. Some network file systems have none; then a warning is all that can be done.

    Args:
        folder: made if missing; removed again if nothing but the lock has come into it.
        name: of the command, for others to read.

    Raises:
        InputError: another command uses the folder; the sentence says which.
        OSError: it cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    file = _locked(folder, path)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([name, *sys.argv[1:]])
    holder = f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})\n"
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, holder.encode(errors="replace"), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def empty_folder(folder: Path) -> None:
    """Delete what is in a folder, or in the one that a symbolic link points to, but not its lock."""
    for entry in folder.iterdir():
        if entry.name == LOCK_NAME:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder but its lock."""
    return all(entry.name == LOCK_NAME for entry in folder.iterdir())


def delete_run(folder: Path) -> None:
    """Delete what a training wrote.

    Raises:
        InputError: it is no run folder.
    """
    if not is_empty(folder) and not (folder / CONFIG_NAME).exists():
        raise InputError(f"{folder}: not a run folder (no {CONFIG_NAME}), so it is not deleted")
    empty_folder(folder)


def steps_done(folder: Path) -> int | None:
    """Return the steps of a folder's latest checkpoint, 0 if the run only began, None if there is none."""
    if not (folder / METRICS_NAME).exists() and not (folder / CONFIG_NAME).exists():
        return None
    saved = folder / FOLDER_NAME
    steps = [int(entry.name) for entry in saved.iterdir() if entry.name.isdigit()] if saved.is_dir() else []
    return max(steps, default=0)


def refuse_changes(old: RunConfig, new: RunConfig, folder: Path) -> None:
    """Let a resumed run only get longer, or change how it is logged and saved.

    Raises:
        InputError: anything else differs.
    """
    free = ("steps", "log.", "checkpoint.", "transfer.", "data.cache", "name", "memory.")
    changes = [change for change in changed_keys(old, new) if not change.startswith(free)]
    if changes:
        raise InputError(
            f"{folder}: a resumed run keeps its settings, but these differ: {', '.join(changes)}; "
            f"undo them or train anew with --restart"
        )


def _locked(folder: Path, path: Path) -> int:
    """Open the lock file and lock it; returns the open file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(file)):
                return file
        except BlockingIOError:
            holder = os.pread(file, LONGEST_HOLDER, 0).decode(errors="replace").partition("\n")[0]
            os.close(file)
            raise InputError(
                f"{folder}: {holder or 'another process'} uses this folder; wait for its end or stop it, or choose "
                f"another folder"
            ) from None
        except FileNotFoundError:  # removed by its holder between two lines
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(file)
                raise
            warnings.warn(
                f"{folder}: this file system has no locks ({error.strerror}); see to it that no other command writes "
                f"there",
                stacklevel=3,
            )
            return file
        os.close(file)
