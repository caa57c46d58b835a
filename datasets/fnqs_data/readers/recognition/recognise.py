"""The format of a file, from what stands in it; its name is asked only where the content does not decide."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from ase.io.formats import UnknownFileTypeError, filetype

from fnqs.errors import InputError
from fnqs_data.readers.recognition.known_formats import READ, REFUSED

HEAD = 64 << 10
"""Bytes of a file that are looked at."""

LARGEST_TEXT = 64 << 20
"""Bytes of a file that is taken into memory as a whole; extxyz and .traj are read frame by frame, of any size."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAGIC = {
    b"\x89HDF\r\n\x1a\n": "qmc-hamm",
    b"- of UlmASE-Trajectory": "traj",
    b"AFFormatASE-Trajectory": "traj",
    b"- of UlmGPAW": "gpw",
    b"AFFormatGPAW": "gpw",
    b"SQLite format 3": "db",
    b"CDF": "netcdftrajectory",
}


def format_of(path: Path, wanted: str | None = None) -> str:
    """Return the name of a file's format, one of `known_formats.READ`.

    Args:
        path: a file.
        wanted: the format that the user named, or None.

    Raises:
        InputError: if the format is not recognised or not accepted.
    """
    if wanted is not None:
        return _accepted(path, wanted)
    head, compressed = _head(path)
    if head.startswith(b"PickleTrajectory") or re.match(rb"\x80[\x02-\x05][\x95}\]c]", head):
        raise InputError(f"{path}: pickled files are not read; convert it with ase convert")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: it is text in UTF-16; save it as UTF-8")
    form = next((form for magic, form in MAGIC.items() if head.startswith(magic)), None)
    form = form or recognise(head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace"))
    form = _accepted(path, form or _format_by_name(path))
    if form != "extxyz":
        if compressed:
            raise InputError(f"{path}: compressed files of format {form} are not read; unpack it first")
        if form not in ("traj", "qmc-hamm", "i-pi") and path.stat().st_size > LARGEST_TEXT:
            raise InputError(
                f"{path}: files of format {form} are read up to {LARGEST_TEXT >> 20} MB; convert it to extxyz"
            )
    return form


def recognise(text: str) -> str | None:
    """Return the format that the beginning of a text has beyond doubt, or None."""
    lines = text.splitlines()
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return None
    return next((form for form, fits in _MARKS.items() if fits(text, lines)), None)


def open_by_content(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacked if its content is compressed, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(path, "rb"))
    if start == b"\xfd7zXZ\x00":
        return cast("IO[bytes]", lzma.open(path, "rb"))
    return path.open("rb")


def _head(path: Path) -> tuple[bytes, bool]:
    """Return the first bytes of a file, unpacked, and whether it is compressed."""
    head = b""
    with open_by_content(path) as file:
        compressed = not hasattr(file, "raw")
        try:
            while len(head) < HEAD and (piece := file.read1(4096)):  # type: ignore[attr-defined]
                head += piece
        # What comes before a break may be whole frames; who reads them says where it is.
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if not head:
                raise InputError(f"{path}: it cannot be unpacked ({error}); is the file complete?") from error
    return head, compressed


def _accepted(path: Path, form: str) -> str:
    """Return the format if it is read; raises InputError with the reason if not."""
    if form in READ:
        return form
    if form in REFUSED:
        raise InputError(f"{path}: files of format {form} ({REFUSED[form]}) are not read; convert it to extxyz")
    raise InputError(
        f"{path}: the format is not recognised ({form}); give extxyz, or name one of these with --format: "
        f"{', '.join(READ)}"
    )


def _format_by_name(path: Path) -> str:
    try:
        # ASE would look into folders and take some names for servers.
        return filetype("./" + path.name, read=False)
    except UnknownFileTypeError:
        return "no known name or content"


def _starts(lines: Sequence[str], *words: str) -> bool:
    """Whether some line starts with each of the words."""
    return all(any(line.lstrip().lower().startswith(word) for line in lines) for word in words)


def _is_numbers(line: str, count: int) -> bool:
    """Whether a line begins with that many numbers."""
    words = line.split()[:count]
    return len(words) == count and all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", w) for w in words)


def _is_xyz(lines: Sequence[str]) -> bool:
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return False
    if re.search(r"(Lattice|Properties)\s*=", lines[1]):
        return True
    words = lines[2].split() if len(lines) > 2 else []
    return len(words) >= 4 and words[0][:1].isalnum() and _is_numbers(" ".join(words[1:4]), 3)


def _is_poscar(lines: Sequence[str]) -> bool:
    if len(lines) < 8 or not (_is_numbers(lines[1], 1) and all(_is_numbers(line, 3) for line in lines[2:5])):
        return False
    if len(lines[1].split("!")[0].split("#")[0].split()) not in (1, 3):
        return False
    counts = 5 if re.match(r"\s*\d+(\s|$)", lines[5]) else 6
    return bool(re.match(r"\s*\d+(\s|$)", lines[counts])) and bool(re.match(r"\s*[SsDdCcKk]", lines[counts + 1]))


def _is_cube(lines: Sequence[str]) -> bool:
    return len(lines) > 6 and all(
        re.match(r"\s*-?\d+\s", line) and len(line.split()) in (4, 5) and _is_numbers(line, 4) for line in lines[2:6]
    )


def _is_siesta(lines: Sequence[str]) -> bool:
    return (
        len(lines) > 4
        and all(len(line.split()) == 6 and _is_numbers(line, 6) for line in lines[:3])
        and lines[3].strip().isdigit()
        and len(lines[4].split()) == 8
    )


_MARKS: dict[str, Callable[[str, Sequence[str]], bool]] = {
    "i-pi": lambda text, lines: bool(re.match(r"\s*\d+\s*\n.*CELL[\[({]", "\n".join(lines[:2]))),
    "extxyz": lambda text, lines: _is_xyz(lines),
    "gen": lambda text, lines: bool(re.match(r"\s*\d+\s+[SFCH]\s*$", lines[0])),
    "lammps-dump-text": lambda text, lines: lines[0].startswith(("ITEM: TIMESTEP", "ITEM: UNITS")),
    "vasp-xdatcar": lambda text, lines: any(re.match(r"\s*\w+\s+configuration\s*=", line) for line in lines[:12]),
    "vasp-out": lambda text, lines: bool(re.match(r"\s*vasp\.\d", lines[0])),
    "vasp-xml": lambda text, lines: "<modeling" in text,
    "espresso-out": lambda text, lines: "Program PWSCF" in text,
    "espresso-in": lambda text, lines: _starts(lines, "&system", "atomic_positions"),
    "res": lambda text, lines: _starts(lines, "titl", "cell"),
    "cif": lambda text, lines: _starts(lines, "data_", "_cell_length_a"),
    "xsf": lambda text, lines: _starts(lines, "primvec", "primcoord"),
    "aims": lambda text, lines: _starts(lines, "lattice_vector", "atom"),
    "lammps-data": lambda text, lines: bool(
        re.search(r"(?m)^\s*\d+\s+atoms\s*(#.*)?$", text) and re.search(r"(?m)\s(xlo\s+xhi|avec)", text)
    ),
    "cube": lambda text, lines: _is_cube(lines),
    "siesta-xv": lambda text, lines: _is_siesta(lines),
    "vasp": lambda text, lines: _is_poscar(lines),
}
"""What only this format has, in the order in which they are asked."""
