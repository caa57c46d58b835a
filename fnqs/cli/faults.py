"""Faults of the program: one sentence for the user, the traceback in a file for whoever mends it."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from fnqs.cli.versions import versions

FAULT = 1
"""Exit code of a command that failed through a fault of its own."""


def fault_sentence(name: str, error: BaseException) -> str:
    """Write traceback, command and versions into a new file in the folder for temporary files, and name it.

    Args:
        name: of the command.
        error: what nobody expected.

    Returns:
        a sentence that says what happened and what to send to whom; where no file can be written, without one.
    """
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    report = "\n".join(
        [" ".join(sys.argv), "", "".join(traceback.format_exception(error)), versions(), ""],
    )
    try:
        handle, path = tempfile.mkstemp(prefix=f"{name}-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError as refused:
        return (
            f"a fault of the program ({what}); its details could not be written ({refused.strerror}), please report it"
        )
    return f"a fault of the program ({what}); please report it with the file {path}"
