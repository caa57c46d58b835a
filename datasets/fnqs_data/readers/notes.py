"""What a file says and nobody reads, and what is read with doubt: gathered over its frames, told once a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

LABEL_HINT = "; --energy-key, --forces-key, --stress-key and --virial-key name labels"
_LABEL = re.compile(r"energ|force|stress|virial", re.IGNORECASE)


class Notes:
    """Names and remarks of one file, each with the number of frames that it comes from."""

    def __init__(self):
        self._unread: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()

    def unread(self, names: Iterable[str]) -> None:
        """Note names of one frame that are there and not read."""
        self._unread.update(names)

    def remark(self, clause: str) -> None:
        """Note a clause about one frame that is read all the same."""
        self._remarks[clause] += 1

    def sentences(self, path: Path) -> list[str]:
        """One line for all that is not read, and one for each remark, naming the file."""
        lines = [f"{path}: {clause} ({_frames(number)})" for clause, number in self._remarks.items()]
        if self._unread:
            number, names = max(self._unread.values()), ", ".join(self._unread)
            # Names with a remark in brackets are not left out for want of a key.
            hint = LABEL_HINT if any(_LABEL.search(name) and "(" not in name for name in self._unread) else ""
            lines.append(f"{path}: not read: {names} ({_frames(number)}){hint}")
        return lines


def _frames(number: int) -> str:
    return "1 frame" if number == 1 else f"{number} frames"
