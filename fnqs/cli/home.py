"""A home for a user without one, as where a container runs under a number that no passwd file knows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fnqs.errors import InputError


def have_a_home() -> None:
    """Give this process HOME and USER where neither the environment nor the system knows them.

    Libraries look for settings and caches in the home folder, and for a name to write into their records; a user id
    without a passwd entry has neither, and they fail with a KeyError or a RuntimeError. Our own cache also leaves a
    home that cannot be written, as "/" is one in a container, if FNQS_CACHE does not say where it should be.
    """
    try:
        home = Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(own_temporary_folder())
    else:
        if not any(os.environ.get(name) for name in ("FNQS_CACHE", "XDG_CACHE_HOME")) and not _writable(
            home / ".cache"
        ):
            os.environ["FNQS_CACHE"] = str(own_temporary_folder() / "fnqs")
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and not _has_entry():
        os.environ["USER"] = f"uid{os.getuid()}"


def own_temporary_folder() -> Path:
    """Make, in the folder for temporary files, one that only this user can read; the same one every time.

    Raises:
        InputError: someone else has made a folder of that name.
        OSError: it cannot be made.
    """
    folder = Path(tempfile.gettempdir()) / f"fnqs-uid{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise InputError(f"{folder}: others can write there; set HOME, or FNQS_CACHE, to a folder of your own")
    return folder


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK | os.X_OK)


def _has_entry() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
