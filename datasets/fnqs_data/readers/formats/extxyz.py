"""Extended XYZ, cut into frames before ASE parses each one.

ASE scans the whole file first: a wrong atom count makes it wait for lines that never come, and one broken
frame costs all the others. Cut here, a file of any size streams frame by frame and a bad frame stands alone.
A line that holds one whole number and nothing else can only begin a frame, so a wrong count is noticed and
reading goes on behind it.
"""

from __future__ import annotations

import io
import re
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import count
from lzma import LZMAError
from pathlib import Path
from typing import IO

from ase import Atoms
from ase.io import read
from ase.io.extxyz import key_val_str_to_dict

from fnqs.errors import InputError
from fnqs_data.readers.checks.plausible import MOST_PROTONS
from fnqs_data.readers.formats.ipi import as_extxyz
from fnqs_data.readers.formats.text import ends_within_number, reason_of
from fnqs_data.readers.frame.isotopes import isotope_of, set_isotopes
from fnqs_data.readers.recognition.recognise import BYTE_ORDER_MARK, open_by_content

_ISOTOPE = re.compile(r"(?<!\S)(?:[DTdt]|[123][Hh])(?!\S)")

_TENSOR = re.compile(r"(^|\s)((?:stress|virial)\s*=)")
"""Names that ASE reads as nine numbers or not at all."""

LONGEST_LINE = 1 << 20
LARGEST_FRAME = 16 << 20
"""Bytes; a longer line or frame is damage (or a bomb, if the file is compressed), not a configuration."""


def iterate_extxyz(path: Path, wanted: slice, form: str = "extxyz") -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it), without the file's name.

    Args:
        path: text, plain or compressed with gzip, bzip2 or xz.
        wanted: frames, counted from the start; no negative numbers.
        form: "extxyz", or "i-pi" where the comment is to be read as i-PI writes it.
    """
    parse = parse_ipi if form == "i-pi" else parse_extxyz
    start, stop, step = wanted.start or 0, wanted.stop, wanted.step or 1
    with open_by_content(path) as file:
        lines = _Lines(file)
        for frame in count():
            if stop is not None and frame >= stop:
                return
            try:
                text = _next_frame(lines)
            except (EOFError, OSError, zlib.error, LZMAError) as error:
                yield frame, InputError(f"the file breaks off here ({error}); is it complete?")
                return
            if text is None:
                return
            if frame >= start and (frame - start) % step == 0:
                yield frame, text if isinstance(text, InputError) else parse(text)


def parse_ipi(text: bytes) -> Atoms | InputError:
    """Parse the text of exactly one frame as i-PI writes it, or say why that cannot be done."""
    try:
        return parse_extxyz(as_extxyz(_decoded(text)).encode())
    except InputError as error:
        return error
    # The parts of ASE that build a cell fail in many ways, too.
    except Exception as error:
        return InputError(f"it cannot be read as i-pi ({reason_of(error)})")


def parse_extxyz(text: bytes) -> Atoms | InputError:
    """Parse the text of exactly one frame, or say why that cannot be done."""
    labels: dict = {}

    def parse_comment(line: str) -> dict:
        # What ASE would move to a calculator, with checks and changes of its own, is looked at by us.
        info = key_val_str_to_dict(_TENSOR.sub(r"\1untouched-\2", line))
        for key in [key for key in info if key not in ("Lattice", "Properties", "pbc")]:
            labels[key.removeprefix("untouched-")] = info.pop(key)
        return info

    try:
        plain, isotopes = _without_isotopes(_decoded(text))
        atoms = read(io.StringIO(plain), format="extxyz", index=0, properties_parser=parse_comment)
    except KeyError as error:
        return InputError(f"{error.args[0]!r} is no element that is known; name hydrogen H, D or T")
    # ASE's parser fails in many ways on a broken text.
    except Exception as error:
        return InputError(f"it cannot be read as extxyz ({reason_of(error)}); is the file damaged?")
    assert isinstance(atoms, Atoms)
    atoms.info.update(labels)
    if isotopes:
        set_isotopes(atoms, isotopes)
    return atoms


def _decoded(text: bytes) -> str:
    """Return a text in UTF-8, or in Latin-1, as comments of older programs are; that one takes any byte."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _without_isotopes(text: str) -> tuple[str, list[str] | None]:
    """Write H for every isotope of hydrogen, and return which they are, None where there is nothing but H."""
    head, comment, *lines = text.splitlines()
    if not any(_ISOTOPE.search(line) for line in lines):
        return text, None
    properties = re.search(r"Properties=[\"{]?(\S+)", comment)
    place = 0
    if properties:
        fields = properties[1].split(":")
        for name, width in zip(fields[::3], fields[2::3], strict=False):
            if name.lower() in ("species", "symbols"):
                break
            place += int(width.strip('"}'))
    isotopes, changed = [], []
    for line in lines:
        words = line.split()
        isotope = isotope_of(words[place]) if len(words) > place else None
        if isotope is None:
            return text, None
        isotopes.append(isotope)
        words[place] = "H"
        changed.append(" ".join(words))
    return "\n".join([head, comment, *changed]) + "\n", isotopes if set(isotopes) != {"H"} else None


def single_frame(text: bytes) -> Atoms | InputError:
    """Parse a text that must hold one frame and nothing else, or say why that cannot be done."""
    lines = _Lines(io.BytesIO(text))
    frame = _next_frame(lines)
    if frame is None:
        return InputError("the text is empty")
    if isinstance(frame, InputError):
        return frame
    if lines.peek().strip():
        return InputError("the text holds more than one frame; is the file damaged?")
    return parse_extxyz(frame)


class _Lines:
    """Lines of a file with a look at those to come; b"" at the end."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._ahead: deque[bytes] = deque()
        self._begun = False

    def next(self) -> bytes:
        return self._ahead.popleft() if self._ahead else self._read()

    def peek(self, distance: int = 0) -> bytes:
        while len(self._ahead) <= distance:
            self._ahead.append(self._read())
        return self._ahead[distance]

    def _read(self) -> bytes:
        line = self._file.readline(LONGEST_LINE)
        if not self._begun:
            line, self._begun = line.removeprefix(BYTE_ORDER_MARK), True
        return line

    def skip_blank(self) -> None:
        while self.peek() and not self.peek().strip():
            self.next()

    def skip_to_head(self) -> None:
        while self.peek() and not _is_head(self.peek()):
            self.next()


def _next_frame(lines: _Lines) -> bytes | InputError | None:
    """Text of the next frame, what is wrong with it, or None at the end of the file."""
    lines.skip_blank()
    if not lines.peek():
        return None
    head = lines.next()
    if not _is_head(head):
        lines.skip_to_head()
        return InputError(f"a number of atoms is expected, not {head.decode(errors='replace').strip()[:40]!r}")
    number = int(head.strip()[:18])
    frame = [head, lines.next()]
    if number > MOST_PROTONS:
        lines.skip_to_head()
        return InputError(f"{number} atoms are announced, more than the {MOST_PROTONS} that are read")
    for found in range(number):
        if not lines.peek().strip() or _is_head(lines.peek()):
            return InputError(f"{number} atoms are announced, but only {found} follow; is the file complete?")
        frame.append(lines.next())
    lines.skip_blank()
    # A line that is no head is a damaged head if a frame's properties follow it, and one atom too many if not.
    if lines.peek() and not _is_head(lines.peek()) and b"=" not in lines.peek(1):
        lines.skip_to_head()
        return InputError(f"{number} atoms are announced, but more follow; is the file damaged?")
    if sum(map(len, frame)) > LARGEST_FRAME or any(len(line) == LONGEST_LINE for line in frame):
        return InputError("its lines are too long for a configuration; is the file damaged?")
    if ends_within_number(frame[-1], frame[-2] if number > 1 else b""):
        return InputError("its last line has no line end and is shorter than the one before; is the file complete?")
    return b"".join(frame)


def _is_head(line: bytes) -> bool:
    return line.strip().isdigit()
