"""The text of a file that is taken into memory as a whole, without the marks that editors leave."""

from __future__ import annotations

from pathlib import Path

from fnqs_data.readers.recognise import BYTE_ORDER_MARK


def text_of(path: Path) -> str:
    """Return a file's text; a comment may be in any encoding, so what is not UTF-8 becomes a replacement character."""
    return path.read_bytes().removeprefix(BYTE_ORDER_MARK).decode(errors="replace").replace("\r\n", "\n")


def floats(line: str, count: int) -> list[float]:
    """Return the first numbers of a line; raises ValueError if it has fewer."""
    words = line.split()[:count]
    if len(words) < count:
        raise ValueError(f"{count} numbers are expected, not {line.strip()[:40]!r}")
    return [float(word.replace("D", "E").replace("d", "e")) for word in words]


def reason_of(error: Exception) -> str:
    """Return what a parser's exception says, in one line of bounded length."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return " ".join(str(error).split())[:200] or type(error).__name__
