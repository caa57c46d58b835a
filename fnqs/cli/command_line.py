"""What every command shares: an argument parser and the one place where errors become sentences."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from fnqs.cli.devices import missing_devices
from fnqs.cli.door import INTERRUPTED
from fnqs.cli.faults import FAULT, fault_sentence
from fnqs.cli.signals import signals_raise
from fnqs.cli.text_streams import accept_every_text, let_go_of_output
from fnqs.errors import InputError

USER_ERROR = 2
"""Exit code of a command that was given something wrong."""


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command's body and turn whatever ends it into one sentence on stderr.

    InputError, a file or disk error (OSError), devices that are not there and a lack of memory give exit code 2,
    Ctrl-C and signals 130; anything else is a fault of the program, 1, whose traceback is kept in a file that the
    sentence names. A reader that closes the pipe early is no error.

    Args:
        name: the command as typed, for instance "fnqs-data"; it starts the sentence.
        function: the body; its return value is the exit code, None meaning 0.

    Returns:
        the exit code, for the entry point to pass to sys.exit.
    """
    accept_every_text()
    try:
        with signals_raise():
            code = function() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        let_go_of_output()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return _complain(name, *explain(name, error))


def explain(name: str, error: BaseException) -> tuple[str, int]:
    """Say in one sentence what has ended a command, and with which exit code it ends.

    Args:
        name: of the command, for the file that keeps the traceback of a fault.
        error: what was raised.
    """
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted", INTERRUPTED
    if isinstance(error, InputError):
        return str(error), USER_ERROR
    if isinstance(error, OSError):
        return os_error_sentence(error), USER_ERROR
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        what = str(error).partition("\n")[0] or "an allocation failed"
        return f"there is not enough memory ({what}); ask for less at a time", USER_ERROR
    if (sentence := missing_devices()) is not None:
        return sentence, USER_ERROR
    return fault_sentence(name, error), FAULT


def os_error_sentence(error: OSError) -> str:
    """One sentence that names the file, what the system refused and the cure."""
    subject = f"{os.fspath(error.filename)!s}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    cure = {
        errno.ENOENT: "check the spelling of the path",
        errno.EACCES: "change its permissions or choose another place",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOSPC: "free some space or choose a folder on another disk, then run the same command again",
        errno.EDQUOT: "free some of your quota or choose a folder elsewhere, then run the same command again",
        errno.EISDIR: "give a file, not a folder",
        errno.ENOTDIR: "give a folder, not a file",
    }.get(error.errno or 0)
    return f"{subject}{reason[0].lower()}{reason[1:]}" + (f"; {cure}" if cure else "")


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors, so that they read like every other one.

    Sub-commands made with `add_subparsers` inherit this. Texts keep their line breaks in --help.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise InputError instead of printing the usage and exiting."""
        raise InputError(f"{message} (see `{self.prog} --help`)")


def positive_int(text: str) -> int:
    """Argparse type: a whole number above zero."""
    return int(_number(text, int, lambda x: x > 0, "a whole number above zero"))


def nonnegative_int(text: str) -> int:
    """Argparse type: a whole number, zero allowed."""
    return int(_number(text, int, lambda x: x >= 0, "a whole number, zero or more"))


def positive_float(text: str) -> float:
    """Argparse type: a finite number above zero."""
    return _number(text, float, lambda x: 0 < x < float("inf"), "a number above zero")


def _number(text: str, kind: type, valid: Callable[[float], bool], wanted: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _complain(name: str, sentence: str, code: int) -> int:
    try:
        sys.stdout.flush()
        print(f"{name}: {sentence}", file=sys.stderr, flush=True)
    except OSError:  # the terminal or the reader of the pipe is gone, and with it whoever could read the sentence
        let_go_of_output()
    return code
