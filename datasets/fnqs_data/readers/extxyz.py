"""Extended XYZ, cut into frames before ASE parses each one.

ASE scans the whole file first: a wrong atom count makes it wait for lines that never come, and one broken
frame costs all the others. Cut here, a file of any size streams frame by frame and a bad frame stands alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ase import Atoms
from ase.io import read
from ase.io.formats import open_with_compression

from fnqs.errors import InputError


def iterate_extxyz(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it), without the file's name.

    Args:
        path: text, or compressed as ASE accepts it.
        wanted: frames, counted from the start; no negative numbers.
    """
    start, stop, step = wanted.start or 0, wanted.stop, wanted.step or 1
    with open_with_compression(str(path), "rt") as file:
        frame = 0
        while stop is None or frame < stop:
            try:
                text = _next_frame(file)
            except (InputError, UnicodeDecodeError, EOFError, OSError) as error:
                yield frame, InputError(f"the text ends or breaks here: {error}; is the file complete?")
                return
            if text is None:
                return
            if frame >= start and (frame - start) % step == 0:
                yield frame, parse_extxyz(text)
            frame += 1


def parse_extxyz(text: str) -> Atoms | InputError:
    """Parse the text of one frame, or say why that cannot be done."""
    try:
        atoms = read(io.StringIO(text), format="extxyz", index=0)
    # ASE's parser fails in many ways on a broken text.
    except Exception as error:
        return InputError(f"it cannot be read as extxyz ({_one_line(error)}); is the file damaged?")
    return atoms if isinstance(atoms, Atoms) else atoms[0]


def _next_frame(file: IO[str]) -> str | None:
    """Lines of the next frame, or None at the end of the file."""
    head = file.readline()
    if not head.strip():
        return None
    if not head.strip().isdecimal():
        raise InputError(f"a number of atoms is expected, not {head.strip()[:40]!r}")
    number = int(head.strip()[:18])
    lines = [head, file.readline()]
    for _ in range(number):
        line = file.readline()
        if not line:
            raise InputError(f"{number} atoms are announced, but only {len(lines) - 2} follow")
        lines.append(line)
    return "".join(lines)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
