import errno
import os
import subprocess
import sys

import pytest

from fnqs.cli.command_line import CommandParser, positive_float, positive_int, run_command
from fnqs.errors import InputError


def raises(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("a.xyz, frame 3: odd N; add a proton"), 2, "fnqs-x: a.xyz, frame 3: odd N; add a proton"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/shard"),
            2,
            "fnqs-x: out/shard: no space left on device; free some space",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.toml"),
            2,
            "fnqs-x: a.toml: no such file",
        ),
        (OSError("connection lost"), 2, "fnqs-x: connection lost"),
        (MemoryError("8 GB"), 2, "fnqs-x: there is not enough memory (8 GB)"),
        (KeyboardInterrupt(), 130, "fnqs-x: interrupted"),
    ],
)
def test_curable_errors_become_one_sentence(error, code, sentence, capsys):
    assert run_command("fnqs-x", raises(error)) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_exit_codes_pass():
    assert run_command("fnqs-x", lambda: None) == 0
    assert run_command("fnqs-x", lambda: 3) == 3


def test_a_closed_pipe_is_no_error():
    program = (
        "import sys; from fnqs.cli.command_line import run_command;"
        "sys.exit(run_command('fnqs-x', lambda: [print('x' * 1000) for _ in range(1000)] and None))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 0


def test_parser_complaints_are_sentences_for_subcommands_too():
    parser = CommandParser(prog="fnqs-x")
    parser.add_argument("--width", type=positive_float)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("go").add_argument("--count", type=positive_int)
    with pytest.raises(InputError, match=r"'-1' is not a whole number above zero \(see `fnqs-x go --help`\)"):
        parser.parse_args(["go", "--count", "-1"])
    for bad in ("nan", "inf", "0", "x"):
        with pytest.raises(InputError, match=f"'{bad}' is not a number above zero"):
            parser.parse_args(["--width", bad, "go"])
