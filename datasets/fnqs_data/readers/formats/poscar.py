"""POSCAR and XDATCAR of VASP: read by ASE frame by frame, after checks of what it would pass over.

ASE takes lines after the last position for velocities, so positions too many would be lost without a word; it reads
files beside a POSCAR that names no species; it gives up a whole XDATCAR whose last frame is cut short; and it does
not know deuterium.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.io import read

from fnqs.errors import InputError
from fnqs_data.readers.checks.plausible import MOST_PROTONS
from fnqs_data.readers.formats.text import CUT, ends_within_number, floats, reason_of, text_of
from fnqs_data.readers.frame.isotopes import isotope_of, set_isotopes

CONFIGURATION = re.compile(r"\s*(\w+)\s+configuration\s*=\s*(\d*)", re.IGNORECASE)


def iterate_poscar(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (0, frame) or (0, what is wrong with it) if frame 0 is wanted."""
    if 0 in range(1)[wanted]:
        yield 0, _frame(text_of(path).splitlines(keepends=True))


def iterate_xdatcar(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it).

    A head of seven lines stands before the first frame, and before each one where the cell changes.
    """
    lines = text_of(path).splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if CONFIGURATION.match(line)]
    if not starts:
        yield 0, InputError("it cannot be read as vasp-xdatcar (no line announces a configuration)")
        return
    head = lines[: starts[0]]
    last = 0
    for frame, start in enumerate(starts):
        stop = starts[frame + 1] if frame + 1 < len(starts) else len(lines)
        block = lines[start + 1 : stop]
        announced = CONFIGURATION.match(lines[start])
        assert announced is not None
        atoms: Atoms | InputError
        try:
            number = sum(int(word) for word in head[6].split())
            places, following = _without_head(block, number, len(head)) if frame + 1 < len(starts) else (block, None)
            if announced[2] and int(announced[2]) <= last:
                raise InputError(f"configuration {announced[2]} comes after {last}; is the file damaged?")
            kind = "Cartesian\n" if announced[1].lower().startswith(("c", "k")) else "Direct\n"
            atoms = _frame([*head[:7], kind, *places])
            last, head = 0 if following else int(announced[2] or 0), following or head
        except InputError as error:
            atoms = error
        except (ValueError, IndexError) as error:
            atoms = InputError(f"it cannot be read as vasp-xdatcar ({reason_of(error)})")
        if frame in range(len(starts))[wanted]:
            yield frame, atoms


def _without_head(block: list[str], number: int, length: int) -> tuple[list[str], list[str] | None]:
    """Part the positions of a frame from the head of the next one, None where there is none."""
    while block and not block[-1].strip():
        block = block[:-1]
    return (block[:number], block[number:]) if len(block) == number + length else (block, None)


def _frame(lines: list[str]) -> Atoms | InputError:
    """Return the frame of a POSCAR's lines, or what is wrong with it."""
    try:
        return _read(lines)
    except InputError as error:
        return error
    # ASE's parser fails in many ways.
    except Exception as error:
        return InputError(f"it cannot be read as vasp ({reason_of(error)})")


def _read(lines: list[str]) -> Atoms:
    if len(lines) < 8:
        raise InputError("it ends before its positions; is the file complete?")
    words = lines[5].split()
    if not words or words[0].isdigit():
        raise InputError("it names no species (VASP 4); add a line with H before the numbers of atoms")
    symbols = [re.split(r"[_/.]", word)[0] for word in words]
    isotopes = [isotope_of(symbol) for symbol in symbols]
    if not all(symbol.isalpha() for symbol in symbols):
        raise InputError(f"its sixth line, {lines[5].strip()[:40]!r}, names no species")
    if None in isotopes:
        others = sorted({symbol for symbol, isotope in zip(symbols, isotopes, strict=True) if isotope is None})
        raise InputError(f"it contains {', '.join(others)}; fnqs knows hydrogen only, remove other species")
    counts = [int(word) for word in lines[6].split("!")[0].split()]
    if len(counts) != len(symbols):
        raise InputError(f"it names {len(symbols)} species but gives {len(counts)} numbers of atoms")
    number = sum(counts)
    if min(counts) < 0 or not 0 < number <= MOST_PROTONS:
        raise InputError(f"{number} atoms are announced, not a number of protons up to {MOST_PROTONS}")
    first = 9 if lines[7].strip()[:1] in ("S", "s") else 8
    found = lines[first : first + number]
    whole = [line for line in found if line.strip()]
    if len(whole) < number:
        raise InputError(f"{number} atoms are announced, but only {len(whole)} follow; is the file complete?")
    for line in whole:
        floats(line, 3)
    after = lines[first + number].strip() if len(lines) > first + number else ""
    if after and not after[0].isalpha():
        raise InputError(f"{number} atoms are announced, but more follow; correct the number")
    if len(lines) <= first + number and ends_within_number(found[-1], found[-2] if number > 1 else ""):
        raise InputError(CUT)
    species = [f"{' '.join('H' for _ in symbols)}\n", f"{' '.join(map(str, counts))}\n"]
    text = "".join(["POSCAR\n", *lines[1:5], *species, *lines[7 : first + number]])
    atoms = read(io.StringIO(text), format="vasp")
    assert isinstance(atoms, Atoms)
    if set(isotopes) != {"H"}:
        set_isotopes(atoms, [name or "H" for name, count in zip(isotopes, counts, strict=True) for _ in range(count)])
    return atoms
