"""The first lines of every command, before anything large is imported."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable

from fnqs.cli.command_line import run_command
from fnqs.cli.home import have_a_home
from fnqs.cli.text_streams import accept_every_text, lasting
from fnqs.cli.versions import versions


def start(name: str, load: Callable[[], Callable[[], int]], interruptible: bool) -> int:
    """Import a command and run it; what comes before it and after it speaks in sentences, too.

    An installation that cannot be imported still tells its --version, warnings take one line, and a user without a
    home gets a folder for temporary files for one.

    Args:
        name: of the command, as typed.
        load: imports it and returns its entry point.
        interruptible: whether Ctrl-C is the command's once it is imported; until then `door` answers.

    Returns:
        the exit code.
    """
    run_with_checks()
    accept_every_text()
    have_a_home()
    if sys.argv[1:] == ["--version"]:
        print(versions(), flush=True)
        return 0
    warnings.showwarning = lambda message, *_, **__: print(f"{name}: {message}", file=lasting(sys.stderr))

    def body() -> int:
        command = load()
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()

    try:
        return run_command(name, body)
    finally:
        # Python's own end would make a traceback of another Ctrl-C; all is said and written by now.
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_with_checks() -> None:
    """Start the process again without PYTHONOPTIMIZE or -O, which take out lines that libraries depend on.

    ASE, for one, reads a line of an xyz file inside an `assert`.
    """
    if not sys.flags.optimize:
        return
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONOPTIMIZE"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *without_optimisation(sys.orig_argv[1:])], environment)


def without_optimisation(arguments: list[str]) -> list[str]:
    """Take -O and -OO out of the options of Python itself; those after the program are the program's."""
    kept = []
    for place, argument in enumerate(arguments):
        if not argument.startswith("-") or argument in ("-c", "-m"):
            return kept + arguments[place:]
        if argument not in ("-O", "-OO"):
            kept.append(argument)
    return kept
