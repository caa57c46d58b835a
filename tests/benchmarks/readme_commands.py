"""Every command that a README shows: whether its options and files exist and, if asked, whether it runs.

    python tests/benchmarks/readme_commands.py [--run] [--only TEXT] [--limit SECONDS]

Commands are the lines of fenced bash blocks, and what stands between backquotes in the text. Of those in blocks the
real parsers read every word and the real config takes every --set; of the others, whose words may be placeholders, the
names of the options are looked up. With --run those in blocks that need no training of minutes are run one after the
other in a temporary folder, with a cell of two atoms as my.extxyz and bcc.extxyz and the shipped model as
runs/quickstart: seconds, exit code and command of each are printed, and what failed in full. Exit code 1 if anything is
wrong.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from fnqs.errors import InputError
from fnqs_data.commands import make_parser as data_parser
from fnqs_eval.commands import make_parser as evaluate_parser
from fnqs_train.commands import finetune_parser, train_parser
from fnqs_train.config import load_config
from fnqs_train.models.shipped import MODELS

ROOT = Path(__file__).parents[2]
PARSERS = {
    "fnqs-data": data_parser,
    "fnqs-train": train_parser,
    "fnqs-finetune": finetune_parser,
    "fnqs-evaluate": evaluate_parser,
}

EXPENSIVE = ("fnqs-train", "runs/bcc_", "fnqs-evaluate transfer", "--configurations thousand", "SET", "--twists 4x4x4")
"""What --run leaves out: minutes to hours of training, evaluations of a run that needs one, and those of many
configurations or twists."""

CELL = """2
Lattice="1.40767 0 0 0 1.40767 0 0 0 1.40767" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.703835 0.703835 0.703835
"""
"""bcc, N = 2, r_s = 1.31 bohr."""


class Command(NamedTuple):
    """One command of a README.

    Attributes:
        file: the README, from the root of the repository.
        words: of the command, without what stands before it (timeout, variables) and after it (comments, redirections).
        fenced: whether it is of a bash block, and so runs as it stands.
    """

    file: str
    words: tuple[str, ...]
    fenced: bool

    @property
    def text(self) -> str:
        """The command as it is typed."""
        return shlex.join(self.words)


def readmes() -> list[Path]:
    """Return all READMEs of the repository, and the one for developers."""
    # pytest's cache has one, too.
    folders = [file for file in sorted(ROOT.glob("*/README.md")) if not file.parent.name.startswith(".")]
    found = [ROOT / "README.md", *folders, ROOT / "tests" / "benchmarks" / "README.md"]
    return [*found, ROOT / ".github" / "CONTRIBUTING.md"]


def commands(file: Path) -> Iterator[Command]:
    """Yield the commands of one README that are ours: fnqs-..., programs of this repository, its installations."""
    text, name = file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix()
    blocks = re.findall(r"(?ms)^ *```bash\n(.*?)^ *```", text)
    for line in "\n".join(blocks).splitlines():
        for words in simple_commands(line):
            yield Command(name, words, True)
    outside = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", outside):
        for words in simple_commands(re.sub(r"[\[\]]|\.\.\.|…", " ", code)):
            yield Command(name, words, False)


def simple_commands(line: str) -> Iterator[tuple[str, ...]]:
    """Cut a line of bash into its simple commands, and yield those that are ours."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        tokens = list(lexer)
    except ValueError:  # text with an apostrophe is no command
        return
    part: list[str] = []
    for token in [*tokens, ";"]:
        if token and set(token) <= set(";&|()<>"):
            start = next((place for place, word in enumerate(part) if is_ours(part[place:])), None)
            if start is not None:
                yield tuple(word for word in part[start:] if not re.fullmatch(r"\$\w+", word))
            part = []
        else:
            part.append(token)


def is_ours(words: list[str]) -> bool:
    """Whether a command starts here."""
    program = Path(words[0]).name
    if program in PARSERS:
        return True
    arguments = words[1:]
    return (program.startswith("python") and arguments[:1] != [] and arguments[0].endswith(".py")) or (
        program == "pip" and arguments[:1] == ["install"]
    )


def find_fault(command: Command) -> str | None:
    """Say in one clause what is wrong with a command, or None."""
    program, *arguments = command.words
    if program in PARSERS:
        return wrong_options(command, program, arguments)
    missing = [word for word in arguments if word.startswith(("configs/", "tests/")) and not (ROOT / word).exists()]
    if missing:
        return f"{missing[0]} does not exist"
    if Path(program).name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        named = {name for word in arguments for part in re.findall(r"\.\[(.*)\]", word) for name in part.split(",")}
        unknown = named - extras["optional-dependencies"].keys()
        return f"no extra {min(unknown)}" if unknown else None
    source = (ROOT / arguments[0]).read_text(encoding="utf-8")
    unknown = [word for word in arguments if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source]
    return f"{arguments[0]} has no option {unknown[0]}" if unknown else None


def wrong_options(command: Command, program: str, arguments: list[str]) -> str | None:
    """Say what the parser of one of our commands refuses, or None."""
    missing = [word for word in arguments if word.startswith("configs/") and not (ROOT / word).exists()]
    if missing:
        return f"{missing[0]} does not exist"
    if not command.fenced:
        known = help_of(program, arguments)
        unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
        return f"{program} has no option {unknown[0]}" if unknown else None
    try:
        options = PARSERS[program]().parse_args(arguments)
        if program == "fnqs-train" and (ROOT / options.config).is_file():
            load_config(ROOT / options.config, options.overrides)
    except InputError as error:
        return str(error)
    return None


def help_of(program: str, arguments: list[str]) -> set[str]:
    """Options that the help of a command, or of its subcommand, names."""
    subcommand = arguments[:1] if program in ("fnqs-data", "fnqs-evaluate") and arguments else []
    if subcommand and subcommand[0].startswith("-"):
        subcommand = []
    with redirect_stdout(io.StringIO()) as printed:
        try:
            PARSERS[program]().parse_args([*subcommand, "--help"])
        except SystemExit:
            pass
        except InputError:  # no such subcommand
            return set()
    return set(re.findall(r"--[a-z][a-z-]*", printed.getvalue()))


def run(command: Command, folder: Path, limit: float) -> bool:
    """Run a command in a folder, print how it went, and return whether it went well."""
    program = shutil.which(command.words[0], path=str(Path(sys.executable).parent)) or command.words[0]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [program, *command.words[1:]], cwd=folder, capture_output=True, text=True, timeout=limit, check=False
        )
        code, said = str(done.returncode), done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = "late", ""
    print(f"{time.monotonic() - began:7.1f} s  {code:>4}  {command.text}", flush=True)
    if code != "0":
        print(said[-2000:])
    return code == "0"


def main() -> int:
    """Check all commands and, if asked, run the cheap ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run what is cheap")
    parser.add_argument("--only", default="", help="only commands that contain this")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one command (default 600)")
    options = parser.parse_args()
    found = [command for file in readmes() for command in commands(file) if options.only in command.text]
    faults = [(command, fault) for command in found if (fault := find_fault(command)) is not None]
    for command, fault in faults:
        print(f"{command.file}: {command.text}: {fault}")
    print(f"{len(found)} commands, {sum(command.fenced for command in found)} of them in blocks, {len(faults)} wrong")
    well = True
    if options.run:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for cell in ("my.extxyz", "bcc.extxyz"):
                (folder / cell).write_text(CELL)
            for linked in ("configs", "tests"):
                (folder / linked).symlink_to(ROOT / linked)
            shutil.copytree(MODELS / "foundation", folder / "runs" / "quickstart")
            fenced = dict.fromkeys(command._replace(file="") for command in found if command.fenced)
            for command in fenced:
                text = command.text
                if command.words[0] in PARSERS and not any(part in text for part in EXPENSIVE):
                    well = run(command, folder, options.limit) and well
    return 0 if well and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
